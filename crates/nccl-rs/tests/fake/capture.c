// Recording the work of streams as a graph. Here the work is also done at once, since libtorch does its own on the host; but
// the rules of CUDA hold: while a thread records, it must not wait for the GPU, nor allocate or free its memory, and every
// stream that waits for a recorded one must be waited for in turn before the recording ends.
#include "streams.h"

#include <stdlib.h>

struct capture {
    stream *origin;
    bool active, spoilt;
};

enum { GRAPH_ALIVE = 0x61, GRAPH_DESTROYED = 0x62 };

typedef struct { int state; } graph;

static _Thread_local capture *ours; // what this thread records

bool spoils_capture(void) {
    if (ours) ours->spoilt = true;
    return ours;
}

void count_operation(stream *on) {
    if (on->in) on->recorded++;
}

static int spoil(capture *spoilt, int error) {
    spoilt->spoilt = true;
    return error;
}

int wait_in_capture(stream *on, stream *from, capture *in, unsigned long recorded) {
    if (!in) return on->in ? spoil(on->in, ISOLATION) : SUCCESS;
    if (!in->active) return on->in ? spoil(on->in, CAPTURED_EVENT) : CAPTURED_EVENT;
    if (on->in && on->in != in) return spoil(in, ISOLATION);
    if (!on->in) on->recorded = on->joined_to = 0;
    on->in = in;
    on->recorded++;
    if (from != on && from->joined_to < recorded) from->joined_to = recorded;
    return SUCCESS;
}

int cudaStreamBeginCapture(void *queue, int mode) {
    BEGIN(cudaStreamBeginCapture);
    if (mode < 0 || mode > 2) return code(INVALID_VALUE);
    pthread_mutex_lock(&lock);
    // CUDA records nothing on the default stream; here it is the host, on which libtorch computes.
    stream *on = find_stream(queue);
    int error = !on ? BAD_HANDLE : on->in || ours ? ILLEGAL_STATE : SUCCESS;
    if (!error) {
        ours = calloc(1, sizeof *ours);
        *ours = (capture){on, true, false};
        on->in = ours;
        on->recorded = on->joined_to = 0;
    }
    pthread_mutex_unlock(&lock);
    return code(error);
}

int cudaStreamEndCapture(void *queue, void **made) {
    maybe_hang("cudaStreamEndCapture");
    if (asked("FAKE_FAIL", "cudaStreamEndCapture")) spoils_capture(); // a failure ends the recording, too
    *made = NULL;
    pthread_mutex_lock(&lock);
    stream *on = find_stream(queue);
    capture *ended = on ? on->in : NULL;
    int error = !on ? BAD_HANDLE : !ended ? ILLEGAL_STATE : ended != ours ? WRONG_THREAD : ended->origin != on ? UNMATCHED : SUCCESS;
    if (!error) {
        bool joined = true;
        for (int i = 0; i < stream_count; i++) {
            if (streams[i]->in != ended) continue;
            joined &= streams[i] == on || streams[i]->joined_to == streams[i]->recorded;
            streams[i]->in = NULL;
        }
        error = ended->spoilt ? INVALIDATED : joined ? SUCCESS : UNJOINED;
        ended->active = false;
        ours = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (!error) {
        graph *finished = malloc(sizeof *finished);
        finished->state = GRAPH_ALIVE;
        *made = finished;
    }
    return code(error);
}

int cudaGraphDestroy(void *handle) {
    BEGIN(cudaGraphDestroy);
    graph *destroyed = handle;
    if (!destroyed || destroyed->state != GRAPH_ALIVE) return code(BAD_HANDLE);
    destroyed->state = GRAPH_DESTROYED;
    return SUCCESS;
}
