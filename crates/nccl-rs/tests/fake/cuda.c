// The CUDA runtime half: streams, events, memory, and the order between them.
#include "streams.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { GPUS = 64 };
enum { STREAM_ALIVE = 0x51, EVENT_ALIVE = 0x52, DESTROYED = 0x53 };
enum { DISABLE_TIMING = 2 };

typedef struct {
    int state, device;
    stream *on;
    unsigned long target;
    vector_clock clock;
    capture *in; // what it was recorded in, after that many operations of its stream
    unsigned long recorded;
    bool timing;
    struct timespec when; // of the call, not of the stream's arrival there
} event;

typedef struct memory {
    char *start;
    size_t bytes;
    int last; // the stream of the last access, and its clock at that time
    unsigned long when;
    struct memory *next;
} memory;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
stream *streams[STREAMS];
int stream_count;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static memory *memories;
static _Thread_local int device;
static _Thread_local int last_error;

int code(int error) {
    if (error) last_error = error;
    return error;
}

bool asked(const char *variable, const char *call) {
    static struct { const char *variable; atomic_int seen; } counts[] = {{"FAKE_FAIL", 0}, {"FAKE_HANG", 0}, {"FAKE_ASYNC", 0}};
    const char *request = getenv(variable), *rank = getenv("FAKE_RANK"), *ours = getenv("OMPI_COMM_WORLD_RANK");
    size_t length = strlen(call);
    if (!request || strncmp(request, call, length) || request[length] != ':') return false;
    if (rank && ours && strcmp(rank, ours)) return false;
    for (int i = 0; i < 3; i++)
        if (!strcmp(counts[i].variable, variable)) return atomic_fetch_add(&counts[i].seen, 1) + 1 == atoi(request + length + 1);
    return false;
}

void maybe_hang(const char *call) {
    if (asked("FAKE_HANG", call))
        for (;;) pause();
}

static void *work(void *argument) {
    stream *self = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!self->first) pthread_cond_wait(&changed, &lock);
        task *next = self->first;
        self->first = next->next;
        pthread_mutex_unlock(&lock);
        next->run(next);
        free(next);
        pthread_mutex_lock(&lock);
        self->done++;
        pthread_cond_broadcast(&changed);
    }
    return NULL;
}

static stream *new_stream(void) {
    if (stream_count == STREAMS) return NULL;
    stream *made = calloc(1, sizeof *made);
    made->state = STREAM_ALIVE;
    made->index = stream_count;
    streams[stream_count++] = made;
    pthread_t thread;
    pthread_create(&thread, NULL, work, made);
    pthread_detach(thread);
    return made;
}

stream *find_stream(void *handle) {
    static stream *standard;
    if (!handle && !standard) {
        standard = new_stream();
        standard->clock.at[standard->index] = 1;
    }
    if (!handle) return standard;
    stream *found = handle;
    return found->state == STREAM_ALIVE ? found : NULL;
}

stream *stream_of(void *handle) {
    pthread_mutex_lock(&lock);
    stream *found = find_stream(handle);
    pthread_mutex_unlock(&lock);
    return found;
}

#ifdef HOST_MEMORY
void host_memory_is_gpu_memory(void) {}

// The host owns all memory from now on: streams must wait for an event that is recorded later. With the lock held.
static void return_to_host(stream *host) {
    unsigned long now = ++host->clock.at[host->index];
    for (memory *m = memories; m; m = m->next) {
        m->last = host->index;
        m->when = now;
    }
}

// Registers memory that was never seen before, last written by the host. With the lock held.
static void register_host_memory(const char *start, size_t bytes) {
    for (memory *m = memories; m; m = m->next)
        if (start >= m->start && start + bytes <= m->start + m->bytes) return;
    stream *host = find_stream(NULL);
    memory *m = calloc(1, sizeof *m);
    *m = (memory){(char *)start, bytes, host->index, host->clock.at[host->index], memories};
    memories = m;
}
#endif

static void push(stream *on, task *added) {
    added->next = NULL;
    if (on->first) on->last->next = added;
    else on->first = added;
    on->last = added;
    on->pushed++;
    count_operation(on);
    pthread_cond_broadcast(&changed);
}

void enqueue(stream *on, task *added) {
    pthread_mutex_lock(&lock);
    push(on, added);
    pthread_mutex_unlock(&lock);
}

void wait_until_idle(void) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < stream_count; i++)
        while (streams[i]->done < streams[i]->pushed) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

typedef struct { int gpu, slice; } visible; // slice is -1 for a whole GPU

// Fills the list of GPUs that this rank sees; returns their number.
static int visible_gpus(visible *list) {
    const char *text = getenv("FAKE_GPUS"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    int count = 0;
    bool named = text && !strcmp(text, "visible");
    if (named) {
        text = getenv("CUDA_VISIBLE_DEVICES");
        if (!text || !*text) return 0;
    } else if (!text || !strpbrk(text, ",./")) {
        for (; count < (text ? atoi(text) : 8); count++) list[count] = (visible){count, -1};
        return count;
    }
    for (int before = rank ? atoi(rank) : 0; before > 0; before--)
        if (strchr(text, '/')) text = strchr(text, '/') + 1;
    char *end;
    do {
        list[count] = (visible){(int)strtol(text, &end, 10), -1};
        if (*end == '.') list[count].slice = (int)strtol(end + 1, &end, 10);
        count++;
        text = end + 1;
    } while (*end == ',');
    return count;
}

int current_gpu(void) {
    visible list[GPUS];
    return device < visible_gpus(list) ? list[device].gpu : -1;
}

const char *touch(stream *on, const void *pointer, size_t bytes) {
    const char *start = pointer, *error = "the buffer is not in device memory";
    pthread_mutex_lock(&lock);
#ifdef HOST_MEMORY
    register_host_memory(start, bytes);
#endif
    for (memory *m = memories; m; m = m->next) {
        if (start < m->start || start + bytes > m->start + m->bytes) continue;
        error = on->clock.at[m->last] < m->when ? "the buffer is used on a stream that does not wait for its last use" : NULL;
        if (!error) {
            m->last = on->index;
            m->when = ++on->clock.at[on->index];
        }
        break;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

// --- devices ------------------------------------------------------------------------------------------------------

const char *cudaGetErrorString(int error) {
    switch (error) {
    case SUCCESS: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case NO_MEMORY: return "out of memory";
    case BAD_DEVICE: return "invalid device ordinal";
    case BAD_HANDLE: return "invalid resource handle";
    case ILLEGAL_STATE: return "the operation cannot be performed in the present state";
    case NOT_WHILE_CAPTURING: return "operation not permitted when stream is capturing";
    case INVALIDATED: return "operation failed due to a previous error during capture";
    case UNMATCHED: return "capture was not ended in the same stream as it began";
    case UNJOINED: return "capturing stream has unjoined work";
    case ISOLATION: return "dependency created on uncaptured work in another stream";
    case CAPTURED_EVENT: return "operation not permitted on an event last recorded in a capturing stream";
    case WRONG_THREAD: return "attempt to terminate a thread-local capture sequence from another thread";
    case UNORDERED: return "memory is used on a stream that does not wait for its last use";
    default: return "unknown error";
    }
}

int cudaGetLastError(void) {
    int error = last_error;
    last_error = SUCCESS;
    return error;
}

int cudaGetDeviceCount(int *count) {
    BEGIN(cudaGetDeviceCount);
    visible list[GPUS];
    *count = visible_gpus(list);
    return code(*count ? SUCCESS : NO_DEVICE);
}

int cudaSetDevice(int wanted) {
    BEGIN(cudaSetDevice);
    int count = 0;
    cudaGetDeviceCount(&count);
    if (wanted < 0 || wanted >= count) return code(BAD_DEVICE);
    device = wanted;
    return SUCCESS;
}

int cudaGetDeviceProperties(void *properties, int wanted) {
    BEGIN(cudaGetDeviceProperties);
    visible list[GPUS];
    if (wanted < 0 || wanted >= visible_gpus(list)) return code(BAD_DEVICE);
    struct { char name[256], uuid[16]; } *begin = properties;
    memset(begin, 0, sizeof *begin);
    strcpy(begin->name, "fake GPU");
    memcpy(begin->uuid, &list[wanted], sizeof list[wanted]);
    return SUCCESS;
}

int cudaDeviceGetPCIBusId(char *text, int room, int wanted) {
    BEGIN(cudaDeviceGetPCIBusId);
    visible list[GPUS];
    if (wanted < 0 || wanted >= visible_gpus(list)) return code(BAD_DEVICE);
    snprintf(text, (size_t)room, "0000:%02x:00.0", (unsigned)list[wanted].gpu);
    return SUCCESS;
}

// --- streams and events -------------------------------------------------------------------------------------------

int cudaStreamCreateWithFlags(void **made, unsigned flags) {
    (void)flags;
    BEGIN(cudaStreamCreateWithFlags);
    pthread_mutex_lock(&lock);
    *made = new_stream();
    pthread_mutex_unlock(&lock);
    return code(*made ? SUCCESS : NO_MEMORY);
}

int cudaStreamDestroy(void *handle) {
    BEGIN(cudaStreamDestroy);
    stream *found = handle ? stream_of(handle) : NULL;
    if (!found) return code(BAD_HANDLE);
    found->state = DESTROYED;
    return SUCCESS;
}

int cudaStreamSynchronize(void *handle) {
    BEGIN(cudaStreamSynchronize);
    if (spoils_capture()) return code(NOT_WHILE_CAPTURING);
    pthread_mutex_lock(&lock);
    stream *on = find_stream(handle);
    unsigned long target = on ? on->pushed : 0;
    while (on && on->done < target) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return code(on ? SUCCESS : BAD_HANDLE);
}

int cudaEventCreateWithFlags(void **made, unsigned flags) {
    BEGIN(cudaEventCreateWithFlags);
    event *e = calloc(1, sizeof *e);
    e->timing = !(flags & DISABLE_TIMING);
    e->state = EVENT_ALIVE;
    e->device = device;
    *made = e;
    return SUCCESS;
}

int cudaEventDestroy(void *handle) {
    BEGIN(cudaEventDestroy);
    event *e = handle;
    if (!e || e->state != EVENT_ALIVE) return code(BAD_HANDLE);
    if (e->device != device) abort(); // callers ignore the result code; see cudaEventQuery
    e->state = DESTROYED;
    return SUCCESS;
}

int cudaEventRecord(void *handle, void *queue) {
    BEGIN(cudaEventRecord);
    event *e = handle;
    pthread_mutex_lock(&lock);
    stream *on = find_stream(queue);
    bool good = on && e->state == EVENT_ALIVE;
    if (good) {
        e->on = on;
        e->target = on->pushed;
        e->clock = on->clock;
        e->in = on->in;
        e->recorded = on->recorded;
        clock_gettime(CLOCK_MONOTONIC, &e->when);
    }
    pthread_mutex_unlock(&lock);
    return code(good ? SUCCESS : BAD_HANDLE);
}

int cudaEventQuery(void *handle) {
    BEGIN(cudaEventQuery);
    if (spoils_capture()) return code(NOT_WHILE_CAPTURING);
    event *e = handle;
    if (e->state != EVENT_ALIVE) return code(BAD_HANDLE);
    // CUDA allows it, but a thread without a current GPU would use the first one and allocate memory there.
    if (e->device != device) return code(BAD_DEVICE);
    pthread_mutex_lock(&lock);
    int error = e->in ? CAPTURED_EVENT : !e->on || e->on->done >= e->target ? SUCCESS : NOT_READY;
    pthread_mutex_unlock(&lock);
    return code(error);
}

int cudaEventElapsedTime(float *milliseconds, void *from, void *to) {
    BEGIN(cudaEventElapsedTime);
    event *both[] = {from, to};
    int error = SUCCESS;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 2 && !error; i++) {
        event *e = both[i];
        if (e->state != EVENT_ALIVE || !e->timing || !e->on) error = BAD_HANDLE;
        else if (e->in) error = CAPTURED_EVENT;
        else if (e->on->done < e->target) error = NOT_READY;
    }
    pthread_mutex_unlock(&lock);
    if (error) return code(error);
    struct timespec a = both[0]->when, b = both[1]->when;
    *milliseconds = (float)((double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
    return SUCCESS;
}

typedef struct {
    task base;
    stream *on;
    unsigned long target;
} wait_task;

static void run_wait(task *base) {
    wait_task *self = (wait_task *)base;
    pthread_mutex_lock(&lock);
    while (self->on->done < self->target) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

int cudaStreamWaitEvent(void *queue, void *handle, unsigned flags) {
    (void)flags;
    BEGIN(cudaStreamWaitEvent);
    event *e = handle;
    pthread_mutex_lock(&lock);
    stream *on = find_stream(queue);
    bool good = on && e->state == EVENT_ALIVE;
    int error = good ? SUCCESS : BAD_HANDLE;
    if (good && e->on) error = wait_in_capture(on, e->on, e->in, e->recorded);
    good &= !error;
#ifdef HOST_MEMORY
    if (good && !queue) {
        while (e->on && e->on->done < e->target) pthread_cond_wait(&changed, &lock);
        return_to_host(on);
        pthread_mutex_unlock(&lock);
        return SUCCESS;
    }
#endif
    if (good && e->on) {
        wait_task *added = malloc(sizeof *added);
        *added = (wait_task){{run_wait, NULL}, e->on, e->target};
        push(on, &added->base);
        for (int i = 0; i < STREAMS; i++)
            if (on->clock.at[i] < e->clock.at[i]) on->clock.at[i] = e->clock.at[i];
    }
    pthread_mutex_unlock(&lock);
    return code(error);
}

// --- memory -------------------------------------------------------------------------------------------------------

int cudaMalloc(void **made, size_t bytes) {
    BEGIN(cudaMalloc);
    if (spoils_capture()) return code(NOT_WHILE_CAPTURING);
    memory *m = calloc(1, sizeof *m);
    m->start = malloc(bytes + 1);
    m->bytes = bytes;
    pthread_mutex_lock(&lock);
    m->next = memories;
    memories = m;
    pthread_mutex_unlock(&lock);
    *made = m->start;
    return SUCCESS;
}

int cudaFree(void *start) {
    BEGIN(cudaFree);
    if (spoils_capture()) return code(NOT_WHILE_CAPTURING);
    wait_until_idle();
    pthread_mutex_lock(&lock);
    memory **m = &memories;
    while (*m && (*m)->start != start) m = &(*m)->next;
    memory *found = *m;
    if (found) *m = found->next;
    pthread_mutex_unlock(&lock);
    if (!found) return code(INVALID_VALUE);
    free(found->start);
    free(found);
    return SUCCESS;
}

typedef struct {
    task base;
    void *to;
    const void *from;
    size_t bytes;
} copy_task;

static void run_copy(task *base) {
    copy_task *self = (copy_task *)base;
    memcpy(self->to, self->from, self->bytes);
}

static bool on_device(const void *pointer) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (memory *m = memories; m; m = m->next)
        found |= (uintptr_t)pointer - (uintptr_t)m->start <= m->bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *handle) {
    (void)kind;
    BEGIN(cudaMemcpyAsync);
    stream *on = stream_of(handle);
    if (!on) return code(BAD_HANDLE);
    // No host memory is pinned here, and for a copy of other memory the host waits.
    if ((!on_device(to) || !on_device(from)) && spoils_capture()) return code(NOT_WHILE_CAPTURING);
    if (on_device(to) && touch(on, to, bytes)) return code(UNORDERED);
    if (on_device(from) && touch(on, from, bytes)) return code(UNORDERED);
    copy_task *added = malloc(sizeof *added);
    *added = (copy_task){{run_copy, NULL}, to, from, bytes};
    enqueue(on, &added->base);
    return SUCCESS;
}
