// The NCCL half: communicators between processes on one machine, over shared memory named by the unique id.
#include "fake.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 22907
#endif

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { F32 = 7, BF16 = 9, SUM = 0, AVG = 4 };
enum { ALIVE = 0x61, FINALIZED = 0x62, DESTROYED = 0x63 };
enum { RANKS = 16, CHUNK = 1 << 18 };

typedef struct { char bytes[128]; } unique_id;

// The arguments of a call; the same on all ranks.
typedef struct { int operation, type, reduction; size_t count; } call;
enum { ALL_REDUCE = 1, FINALIZE = 2 };

typedef struct {
    atomic_uint arrived, round;
    int gpu[RANKS];
    call calls[RANKS];
    char data[RANKS][CHUNK];
} shared;

typedef struct {
    atomic_int state;
    int rank, size;
    atomic_int failed; // the result of ncclCommGetAsyncError
    shared *shared;
} communicator;

typedef struct operation {
    task base;
    communicator *comm;
    stream *on;
    call call;
    const void *from;
    void *to;
    bool never_done;
    struct operation *next;
} operation;

static char last_error[200];
static _Thread_local int depth;
static _Thread_local operation *grouped, **grouped_end;

static int fail(int code, const char *message) {
    snprintf(last_error, sizeof last_error, "%s", message);
    return code;
}

// A collective hangs on its stream; other functions hang in the call.
#define FAIL(call) \
    if (asked("FAKE_FAIL", #call)) return fail(SYSTEM_ERROR, "failed on purpose")
#define FAIL_WITH(comm, call) \
    FAIL(call); \
    if (comm->state == DESTROYED) return fail(INVALID_ARGUMENT, "the communicator is used after it was destroyed")
#define BEGIN(call) \
    maybe_hang(#call); \
    FAIL(call)
#define BEGIN_WITH(comm, call) \
    maybe_hang(#call); \
    FAIL_WITH(comm, call)

static void meet(communicator *comm) {
    shared *all = comm->shared;
    unsigned round = atomic_load(&all->round);
    if (atomic_fetch_add(&all->arrived, 1) + 1 == (unsigned)comm->size) {
        atomic_store(&all->arrived, 0);
        atomic_fetch_add(&all->round, 1);
    } else {
        for (int spins = 0; atomic_load(&all->round) == round && comm->state != DESTROYED; spins++) {
            if (spins < 100) sched_yield();
            else usleep(50);
        }
    }
}

// Whether all ranks make the same call; the same result on each.
static bool same_call(communicator *comm, call ours) {
    comm->shared->calls[comm->rank] = ours;
    meet(comm);
    bool same = true;
    for (int rank = 1; rank < comm->size; rank++)
        same &= !memcmp(&comm->shared->calls[rank], &comm->shared->calls[0], sizeof ours);
    meet(comm);
    return same;
}

static float widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static uint16_t narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); // to nearest, ties to even
}

static void reduce(communicator *comm, operation *op, char *to, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int rank = 0; rank < comm->size; rank++) {
            const char *data = comm->shared->data[rank];
            float value = op->call.type == F32 ? ((const float *)data)[i] : widen(((const uint16_t *)data)[i]);
            sum = rank ? sum + value : value;
        }
        if (op->call.reduction == AVG) sum /= (float)comm->size;
        if (op->call.type == F32) ((float *)to)[i] = sum;
        else ((uint16_t *)to)[i] = narrow(sum);
    }
}

static void run_operation(task *base) {
    operation *op = (operation *)base;
    communicator *comm = op->comm;
    while (op->never_done && comm->state != DESTROYED) usleep(1000);
    if (comm->state == DESTROYED) return; // aborted
    if (!same_call(comm, op->call)) {
        fail(0, "the ranks make different calls");
        atomic_store(&comm->failed, INVALID_USAGE);
        return;
    }
    size_t width = op->call.type == F32 ? 4 : 2, left = op->call.count, at = 0;
    while (left) {
        size_t count = left < CHUNK / width ? left : CHUNK / width;
        char *to = (char *)op->to + at * width;
        memcpy(comm->shared->data[comm->rank], (const char *)op->from + at * width, count * width);
        meet(comm);
        reduce(comm, op, to, count);
        meet(comm);
        at += count;
        left -= count;
    }
}

static int start(operation *op) {
    const char *wrong = touch(op->on, op->to, op->call.count * (op->call.type == F32 ? 4 : 2));
    if (wrong) {
        free(op);
        return fail(INVALID_USAGE, wrong);
    }
    enqueue(op->on, &op->base);
    return SUCCESS;
}

static int collective(communicator *comm, call made, const void *from, void *to, void *handle, const char *name) {
    stream *on = stream_of(handle);
    if (!on) return fail(INVALID_ARGUMENT, "the stream is used after it was destroyed");
    if (comm->state != ALIVE) return fail(INVALID_USAGE, "the communicator is finalized");
    if (made.type != F32 && made.type != BF16) return fail(INVALID_ARGUMENT, "no such type");
    if (made.reduction != SUM && made.reduction != AVG) return fail(INVALID_ARGUMENT, "no such reduction");
    operation *op = calloc(1, sizeof *op);
    *op = (operation){{run_operation, NULL}, comm, on, made, from, to, asked("FAKE_HANG", name), NULL};
    if (asked("FAKE_ASYNC", name)) {
        op->never_done = true;
        fail(0, "a peer is gone, on purpose");
        atomic_store(&comm->failed, REMOTE_ERROR);
    }
    if (!depth) return start(op);
    *grouped_end = op;
    grouped_end = &op->next;
    return SUCCESS;
}

// --- the interface ------------------------------------------------------------------------------------------------

const char *ncclGetErrorString(int code) {
    static const char *messages[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                  "invalid argument", "invalid usage",
                                  "remote process exited or there was a network error"};
    return code >= 0 && code <= 6 ? messages[code] : "unknown result code";
}

const char *ncclGetLastError(void *comm) {
    (void)comm;
    return last_error;
}

int ncclGetVersion(int *version) {
    *version = VERSION;
    BEGIN(ncclGetVersion);
    return SUCCESS;
}

int ncclGetUniqueId(unique_id *id) {
    BEGIN(ncclGetUniqueId);
    // Unnamed memory is freed with the last process that uses it, however that one ends.
    int file = memfd_create("fake-nccl", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, sizeof(shared))) return fail(SYSTEM_ERROR, "no shared memory");
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "/proc/%d/fd/%d", getpid(), file);
    return SUCCESS;
}

int ncclCommInitRank(void **made, int size, unique_id id, int rank) {
    BEGIN(ncclCommInitRank);
    if (size < 1 || size > RANKS || rank < 0 || rank >= size) return fail(INVALID_ARGUMENT, "no such rank");
    int file = open(id.bytes, O_RDWR);
    if (file < 0) return fail(SYSTEM_ERROR, "the rank that generated the id is gone");
    communicator *comm = calloc(1, sizeof *comm);
    comm->state = ALIVE;
    comm->rank = rank;
    comm->size = size;
    comm->shared = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    comm->shared->gpu[rank] = current_gpu();
    meet(comm);
    for (int other = 0; other < size; other++)
        if (other != rank && comm->shared->gpu[other] == comm->shared->gpu[rank])
            return fail(INVALID_USAGE, "two ranks use one GPU");
    *made = comm;
    return SUCCESS;
}

int ncclCommGetAsyncError(void *handle, int *error) {
    communicator *comm = handle;
    BEGIN_WITH(comm, ncclCommGetAsyncError);
    *error = atomic_load(&comm->failed);
    return SUCCESS;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int reduction, void *handle, void *on) {
    communicator *comm = handle;
    FAIL_WITH(comm, ncclAllReduce);
    return collective(comm, (call){ALL_REDUCE, type, reduction, count}, from, to, on, "ncclAllReduce");
}

int ncclGroupStart(void) {
    BEGIN(ncclGroupStart);
    if (!depth++) {
        grouped = NULL;
        grouped_end = &grouped;
    }
    return SUCCESS;
}

int ncclGroupEnd(void) {
    BEGIN(ncclGroupEnd);
    if (!depth) return fail(INVALID_USAGE, "a group ends that was not started");
    if (--depth) return SUCCESS;
    int code = SUCCESS;
    for (operation *op = grouped, *next; op; op = next) {
        next = op->next;
        int started = start(op);
        if (!code) code = started;
    }
    return code;
}

int ncclCommFinalize(void *handle) {
    communicator *comm = handle;
    BEGIN_WITH(comm, ncclCommFinalize);
    wait_until_idle();
    comm->state = FINALIZED;
    bool same = same_call(comm, (call){FINALIZE, 0, 0, 0});
    return same ? SUCCESS : fail(INVALID_USAGE, "the ranks make different calls");
}

int ncclCommDestroy(void *handle) {
    communicator *comm = handle;
    BEGIN_WITH(comm, ncclCommDestroy);
    if (comm->state != FINALIZED) return fail(INVALID_USAGE, "the communicator is destroyed before it is finalized");
    comm->state = DESTROYED; // kept, to detect later use
    return SUCCESS;
}

int ncclCommAbort(void *handle) {
    communicator *comm = handle;
    BEGIN_WITH(comm, ncclCommAbort);
    comm->state = DESTROYED;
    return SUCCESS;
}
