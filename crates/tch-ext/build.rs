//! Compiles the shim against the libtorch that torch-sys links.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    let lib = PathBuf::from(
        std::env::var("DEP_TCH_LIBTORCH_LIB")
            .expect("torch-sys did not say where libtorch is: run scripts/setup.sh, which writes .cargo/config.toml"),
    );
    let include = lib.with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .flag_if_supported("-Wno-unused-parameter")
        // libtorch's parallel_for is a header around OpenMP.
        .flag("-fopenmp")
        .opt_level(3)
        .file("cpp/shim.cpp")
        .file("cpp/group_norm.cpp")
        .file("cpp/profiler.cpp")
        .compile("tch_ext_shim");
    // libtorch's own copy, found by its name: two OpenMP runtimes in one process would each start their threads.
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
}
