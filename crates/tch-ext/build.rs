//! Compiles the shim against the libtorch that torch-sys links.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    // Clippy runs the build scripts of the workspace once more, in folders of their own, and links nothing.
    if std::env::var_os("RUSTC_WORKSPACE_WRAPPER").is_some_and(|wrapper| is_clippy(wrapper.as_ref())) {
        return;
    }
    let lib =
        PathBuf::from(std::env::var("DEP_TCH_LIBTORCH_LIB").expect(
            "torch-sys did not report where libtorch is: run scripts/setup.sh, which writes .cargo/config.toml",
        ));
    let include = lib.with_file_name("include");
    let sources = || {
        let mut build = cc::Build::new();
        // As libtorch was compiled: some of its classes have more members without it.
        build.cpp(true).std("c++20").opt_level(3).define("NDEBUG", None);
        build
    };
    // The source that NVRTC compiles at run time, as a string.
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    let source = std::fs::read_to_string("cpp/group_norm_gpu.h").expect("the source of the GPU's kernels");
    std::fs::write(out.join("group_norm_gpu.inc"), format!("R\"CUDA({source})CUDA\"")).expect("a writable OUT_DIR");
    sources()
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .flag_if_supported("-Wno-unused-parameter")
        // libtorch's parallel_for is a header around OpenMP.
        .flag("-fopenmp")
        .file("cpp/shim.cpp")
        .file("cpp/group_norm.cpp")
        .include(&out)
        .file("cpp/gpu_kernels.cpp")
        .file("cpp/group_norm_on_gpu.cpp")
        .file("cpp/masked_scale.cpp")
        .file("cpp/operations.cpp")
        .file("cpp/winograd.cpp")
        .file("cpp/winograd_planes.cpp")
        .file("cpp/processor.cpp")
        .file("cpp/profiler.cpp")
        .file("cpp/checkpoint.cpp")
        .file("cpp/gradient_sinks.cpp")
        .file("cpp/stream.cpp")
        .file("cpp/graph.cpp")
        .file("cpp/snapshot.cpp")
        .file("cpp/memory_watch.cpp")
        .compile("tch_ext_shim");
    // Kernels pass vectors wider than the processor's only between functions of their file. GCC 12 warns about its own
    // header of AVX-512 intrinsics.
    let quiet = ["-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"];
    let kernels = || {
        quiet.iter().fold(sources(), |mut build, flag| {
            build.flag_if_supported(*flag);
            build
        })
    };
    let x86_64 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|target| target == "x86_64");
    for file in ["group_norm", "winograd"] {
        let compile = |processor: &str, flags: &[&str]| {
            let name = format!("{file}_{processor}");
            let mut build = kernels();
            build.file(format!("cpp/{file}_kernels.cpp")).define("KERNELS", name.as_str()).flags(flags).compile(&name);
        };
        compile("any", &[]);
        if x86_64 {
            compile("avx2", &["-march=x86-64-v3"]);
            compile("avx512", &["-march=x86-64-v4"]);
        }
    }
    if x86_64 {
        let mut build = kernels();
        build.file("cpp/winograd_bf16.cpp").flag("-march=x86-64-v4");
        build.flag_if_supported("-mavx512bf16").compile("winograd_bf16");
    }
    // libtorch's own copy, found by its name: two OpenMP runtimes in one process would each start their own threads.
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
}

fn is_clippy(wrapper: &Path) -> bool {
    wrapper.file_stem().is_some_and(|name| name == "clippy-driver")
}
