// Violates the rules of CUDA and NCCL one by one: the library of tests/fake must detect each violation.
// Linked with that library; prints the rules whose violation goes undetected.
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct { char bytes[128]; } unique_id;
typedef void *handle;

int cudaMalloc(void **, size_t), cudaSetDevice(int), cudaMemcpyAsync(void *, const void *, size_t, int, handle);
int cudaStreamCreateWithFlags(handle *, unsigned), cudaStreamDestroy(handle), cudaStreamSynchronize(handle);
int cudaEventCreateWithFlags(handle *, unsigned), cudaEventDestroy(handle), cudaEventRecord(handle, handle);
int cudaStreamWaitEvent(handle, handle, unsigned), cudaEventQuery(handle), cudaFree(void *);
int cudaStreamBeginCapture(handle, int), cudaStreamEndCapture(handle, handle *), cudaGraphDestroy(handle);
int ncclGetUniqueId(unique_id *), ncclCommInitRank(handle *, int, unique_id, int), ncclGroupStart(void), ncclGroupEnd(void);
int ncclAllReduce(const void *, void *, size_t, int, int, handle, handle);
int ncclCommGetAsyncError(handle, int *), ncclCommFinalize(handle), ncclCommDestroy(handle);

enum { F32 = 7, BF16 = 9, SUM = 0, COPY_DEFAULT = 4, NOT_READY = 600, NOT_WHILE_CAPTURING = 900, INVALIDATED = 901,
       UNMATCHED = 903, UNJOINED = 904, ISOLATION = 905, CAPTURED_EVENT = 907, WRONG_THREAD = 908, THREAD_LOCAL = 1 };
static int failures;

static void expect(int holds, const char *rule) {
    if (holds) return;
    printf("%s\n", rule);
    failures++;
}

// Two ranks call all-reduces that differ; or, as a control, that do not.
static int detects(unique_id id, size_t count, int type) {
    int rank = fork() ? 0 : 1, error = 0;
    handle comm, stream;
    void *memory;
    cudaSetDevice(rank);
    cudaMalloc(&memory, 64);
    cudaStreamCreateWithFlags(&stream, 1);
    if (ncclCommInitRank(&comm, 2, id, rank)) return -1;
    if (rank) ncclAllReduce(memory, memory, count, type, SUM, comm, stream);
    else ncclAllReduce(memory, memory, 16, F32, SUM, comm, stream);
    cudaStreamSynchronize(stream);
    ncclCommGetAsyncError(comm, &error);
    if (rank) _exit(error != 0);
    int theirs = 0;
    wait(&theirs);
    return error != 0 && theirs != 0;
}

// Something that must not be done while `on` is recorded.
static void spoils(handle on, int (*act)(void), const char *rule) {
    handle graph;
    expect(!cudaStreamBeginCapture(on, THREAD_LOCAL), "a recording can begin");
    expect(act() == NOT_WHILE_CAPTURING, rule);
    expect(cudaStreamEndCapture(on, &graph) == INVALIDATED && !graph, rule);
}

static handle other, before; // a stream and an event that are not recorded
static void *device_memory;
static float host_memory[4];
static int waits(void) { return cudaStreamSynchronize(other); }
static int asks(void) { return cudaEventQuery(before); }
static int allocates(void) { return cudaMalloc(&device_memory, 64); }
static int frees(void) { return cudaFree(device_memory); }
static int uploads(void) { return cudaMemcpyAsync(device_memory, host_memory, sizeof host_memory, COPY_DEFAULT, other); }

static void *end_elsewhere(void *on) {
    handle graph;
    return (void *)(long)cudaStreamEndCapture(on, &graph);
}

static void recordings(void) {
    handle recorded, during, graph;
    cudaStreamCreateWithFlags(&recorded, 1);
    cudaStreamCreateWithFlags(&other, 1);
    cudaEventCreateWithFlags(&before, 2);
    cudaEventCreateWithFlags(&during, 2);
    cudaMalloc(&device_memory, sizeof host_memory);
    cudaEventRecord(before, other);

    spoils(recorded, waits, "a recording does not wait for a stream");
    spoils(recorded, asks, "a recording does not ask for an event");
    spoils(recorded, allocates, "a recording allocates no memory");
    spoils(recorded, frees, "a recording frees no memory");
    spoils(recorded, uploads, "a recording copies no memory that is not pinned");

    expect(cudaStreamEndCapture(recorded, &graph) != 0, "a recording begins before it ends");
    expect(cudaStreamBeginCapture(recorded, 3), "a recording has a known mode");
    expect(!cudaStreamBeginCapture(recorded, THREAD_LOCAL), "a recording can begin");
    expect(cudaStreamBeginCapture(recorded, THREAD_LOCAL), "a recording begins once");
    pthread_t thread;
    void *error;
    pthread_create(&thread, NULL, end_elsewhere, recorded);
    pthread_join(thread, &error);
    expect((long)error == WRONG_THREAD, "a recording ends on its thread");
    cudaEventRecord(during, recorded);
    expect(!cudaStreamWaitEvent(other, during, 0), "another stream can join");
    expect(cudaStreamEndCapture(other, &graph) == UNMATCHED, "a recording ends on its stream");
    expect(cudaStreamEndCapture(recorded, &graph) == UNJOINED && !graph, "a stream that has joined is waited for");

    cudaStreamBeginCapture(recorded, THREAD_LOCAL);
    cudaEventRecord(during, recorded);
    cudaStreamWaitEvent(other, during, 0);
    cudaEventRecord(during, other);
    cudaStreamWaitEvent(recorded, during, 0);
    expect(!cudaStreamEndCapture(recorded, &graph) && graph, "a stream can join and be waited for");
    expect(cudaEventQuery(during) == CAPTURED_EVENT, "an event of a recording is not asked for");
    expect(cudaStreamWaitEvent(other, during, 0) == CAPTURED_EVENT, "an event of a recording is not waited for later");
    expect(!cudaGraphDestroy(graph), "a graph can be destroyed");
    expect(cudaGraphDestroy(graph), "a graph is destroyed once");

    cudaStreamBeginCapture(recorded, THREAD_LOCAL);
    cudaEventRecord(during, recorded);
    cudaStreamWaitEvent(other, during, 0);
    cudaEventRecord(during, other);
    cudaMemcpyAsync(device_memory, device_memory, 4, COPY_DEFAULT, other);
    cudaStreamWaitEvent(recorded, during, 0);
    expect(cudaStreamEndCapture(recorded, &graph) == UNJOINED, "a stream is waited for after its last work");

    cudaStreamBeginCapture(recorded, THREAD_LOCAL);
    expect(cudaStreamWaitEvent(recorded, before, 0) == ISOLATION, "a recording waits for nothing outside of it");
    expect(cudaStreamEndCapture(recorded, &graph) == INVALIDATED, "a recording waits for nothing outside of it");
}

int main(void) {
    unique_id id;
    // Before this process has threads, which do not survive a fork; each pair is two child processes.
    for (int i = 0; i < 3; i++) {
        ncclGetUniqueId(&id);
        if (!fork()) _exit(detects(id, i == 1 ? 15 : 16, i == 2 ? BF16 : F32));
        int status;
        wait(&status);
        static const char *rules[] = {"equal calls pass", "counts agree", "types agree"};
        expect(WIFEXITED(status) && WEXITSTATUS(status) == (i > 0), rules[i]);
    }

    handle comm, compute, lane, ready;
    void *memory;
    float values[4] = {1, 2, 3, 4};
    ncclGetUniqueId(&id);
    expect(!ncclCommInitRank(&comm, 1, id, 0), "a single rank can start");
    cudaMalloc(&memory, sizeof values);
    cudaStreamCreateWithFlags(&compute, 1);
    cudaStreamCreateWithFlags(&lane, 1);
    cudaEventCreateWithFlags(&ready, 2);

    expect(ncclAllReduce(values, values, 4, F32, SUM, comm, lane), "a collective takes device memory only");
    cudaMemcpyAsync(memory, values, sizeof values, COPY_DEFAULT, compute);
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "a collective waits for what writes its buffer");
    cudaStreamWaitEvent(lane, ready, 0);
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "an unrecorded event orders nothing");

    cudaEventRecord(ready, compute);
    cudaStreamWaitEvent(lane, ready, 0);
    expect(!ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "an event orders a collective");
    cudaEventRecord(ready, lane);
    expect(cudaMemcpyAsync(values, memory, sizeof values, COPY_DEFAULT, compute), "a copy waits for the last use");
    cudaStreamWaitEvent(compute, ready, 0);
    expect(!cudaMemcpyAsync(values, memory, sizeof values, COPY_DEFAULT, compute), "an event orders a copy");
    cudaEventRecord(ready, compute); // too early: before the copy to wait for
    cudaMemcpyAsync(memory, values, sizeof values, COPY_DEFAULT, compute);
    cudaStreamWaitEvent(lane, ready, 0);
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "an event recorded too early does not help");

    expect(ncclGroupEnd(), "a group starts before it ends");
    expect(ncclAllReduce(memory, memory, 4, 3, SUM, comm, lane), "unknown types are refused");
    expect(ncclCommDestroy(comm), "a communicator is finalized before it is destroyed");
    expect(!ncclCommFinalize(comm), "a communicator can be finalized");
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "a finalized communicator takes no work");
    expect(!ncclCommDestroy(comm), "a communicator can be destroyed");
    expect(ncclCommDestroy(comm), "a communicator is destroyed once");
    int error;
    expect(ncclCommGetAsyncError(comm, &error), "a destroyed communicator is not queried");
    cudaEventDestroy(ready);
    expect(cudaEventRecord(ready, lane) && cudaEventQuery(ready) != NOT_READY, "a destroyed event is not used");
    cudaStreamDestroy(lane);
    expect(cudaStreamSynchronize(lane), "a destroyed stream is not used");
    recordings();
    return failures != 0;
}
