//! Compiles the fake NCCL, CUDA and NVML library in this folder; see `fake.h`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

/// Compiles the library with `options` into `folder`, once per version of its source.
pub fn library(folder: &str, options: &[&str]) -> PathBuf {
    let sources =
        ["cuda.c", "capture.c", "nccl.c", "nvml.c", "fake.h", "streams.h"].map(|name| source("fake").join(name));
    let mut hasher = DefaultHasher::new();
    options.hash(&mut hasher);
    for path in &sources {
        fs::read(path).expect("the source is there").hash(&mut hasher);
    }
    let library = Path::new(folder).join(format!("fake-nccl-{:016x}.so", hasher.finish()));
    if !library.exists() {
        // Tests run as parallel processes: the name appears only when the file is complete.
        let unfinished = library.with_extension(process::id().to_string());
        // -Bsymbolic: it must call its own functions even if the process also has the real libcudart, as with libtorch.
        let shared = ["-shared", "-fPIC", "-pthread", "-Wl,-Bsymbolic"];
        compile(&unfinished, &[options, &shared].concat(), &sources[..4]);
        fs::rename(unfinished, &library).expect("both are in one folder");
    }
    library
}

/// A folder of C sources in tests/ of this crate; also used by the tests of other crates.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nccl-rs/tests").join(name)
}

/// Runs the C compiler.
pub fn compile(output: &Path, options: &[&str], sources: &[PathBuf]) {
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(output);
    let status = cc.args(sources).args(options).status().expect("cc is installed");
    assert!(status.success(), "{cc:?}");
}
