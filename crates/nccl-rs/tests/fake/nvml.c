// The sensors of the fake GPUs: GPU N takes 100 + N W, is busy for 80 + N percent of the time, and has N + 1 GB in use.
#include "fake.h"

#include <stdio.h>

enum { NVML_SUCCESS = 0, NVML_UNINITIALIZED = 1, NVML_NOT_SUPPORTED = 3, NVML_NOT_FOUND = 6 };

static bool initialized;

int nvmlInit_v2(void) {
    initialized = true;
    return NVML_SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    if (!initialized) return NVML_UNINITIALIZED;
    unsigned number;
    if (sscanf(uuid, "GPU-%2x000000-", &number) != 1) return NVML_NOT_FOUND; // the UUID begins with the number
    *gpu = (char *)NULL + number + 1;
    return NVML_SUCCESS;
}

static unsigned number_of(void *gpu) { return (unsigned)((char *)gpu - (char *)NULL) - 1; }

int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts) {
    if (asked("FAKE_FAIL", "nvmlDeviceGetPowerUsage")) return NVML_NOT_SUPPORTED;
    *milliwatts = 1000 * (100 + number_of(gpu));
    return NVML_SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *gpu, unsigned rates[2]) {
    rates[0] = 80 + number_of(gpu);
    rates[1] = 10;
    return NVML_SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long memory[3]) {
    const unsigned long long gb = 1000000000;
    memory[0] = 80 * gb;
    memory[2] = (number_of(gpu) + 1) * gb;
    memory[1] = memory[0] - memory[2];
    return NVML_SUCCESS;
}
