// A function of the caller's, and what it needs to run.
#pragma once

namespace tch_ext {

// Owns `context`: passes it to `release` in the end.
template <typename... Arguments> class Callback {
public:
    using Function = bool (*)(void *context, Arguments...);
    using Release = void (*)(void *context);

    Callback(void *context, Function function, Release release)
        : context(context), function(function), release(release) {}
    Callback(const Callback &) = delete;
    Callback &operator=(const Callback &) = delete;
    ~Callback() { release(context); }

    // Whether it succeeded.
    bool operator()(Arguments... arguments) const { return function(context, arguments...); }

private:
    void *context;
    Function function;
    Release release;
};

} // namespace tch_ext
