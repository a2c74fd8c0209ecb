// The result of the C++ functions: null, or an error message that the caller frees with tch_ext_free.
#pragma once
#include <c10/util/Exception.h>

#include <cstring>

namespace tch_ext {

inline char *duplicate(const char *message) { return strdup(message ? message : "unknown C++ exception"); }

template <typename F> char *guarded(F &&body) {
    try {
        body();
        return nullptr;
    } catch (const c10::Error &error) {
        return duplicate(error.what_without_backtrace());
    } catch (const std::exception &error) {
        return duplicate(error.what());
    } catch (...) {
        return duplicate(nullptr);
    }
}

} // namespace tch_ext
