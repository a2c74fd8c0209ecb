// What cuda.c and capture.c share: error codes, streams, and what a stream takes part in while it is recorded.
#pragma once
#include "fake.h"

#include <pthread.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NO_MEMORY = 2, NO_DEVICE = 100, BAD_DEVICE = 101, BAD_HANDLE = 400,
       ILLEGAL_STATE = 401, NOT_READY = 600, NOT_WHILE_CAPTURING = 900, INVALIDATED = 901, UNMATCHED = 903, UNJOINED = 904,
       ISOLATION = 905, CAPTURED_EVENT = 907, WRONG_THREAD = 908, UNORDERED = 998, UNKNOWN = 999 };

// A recording in progress, or an ended one, to which events may still refer.
typedef struct capture capture;

struct stream {
    int state, index;
    unsigned long pushed, done;
    task *first, *last;
    vector_clock clock;
    capture *in;                       // NULL if it is not being recorded
    unsigned long recorded, joined_to; // its operations in the recording, and how many of them another stream waits for
};

extern pthread_mutex_t lock; // protects everything below, and what capture.c keeps
extern stream *streams[STREAMS];
extern int stream_count;

stream *find_stream(void *handle); // NULL if it was destroyed; with the lock held
int code(int error);               // remembers the error and returns it

#define BEGIN(call) \
    do { \
        maybe_hang(#call); \
        if (asked("FAKE_FAIL", #call)) return code(UNKNOWN); \
    } while (0)

// Whether this thread is recording; if so, the recording is spoilt by what the caller is about to refuse.
bool spoils_capture(void);
// The stream's next operation. With the lock held.
void count_operation(stream *on);
// `on` waits for an event, recorded on `from` after `recorded` operations of `in`. Returns an error code. With the lock held.
int wait_in_capture(stream *on, stream *from, capture *in, unsigned long recorded);
