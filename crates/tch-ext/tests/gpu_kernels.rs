//! The kernels for a GPU, compiled by the real NVRTC, which needs no GPU. What they compute is tested in `group_norm.rs`.

use std::path::PathBuf;

use tch::Device;
use tch_ext::{check_gpu_kernels, compile_gpu_kernels};

fn nvrtc() -> PathBuf {
    std::env::var_os("DDPM_TEST_NVRTC").expect("scripts/test.sh sets DDPM_TEST_NVRTC").into()
}

#[test]
fn nvrtc_compiles_them_for_the_gpus_of_today() {
    for architecture in ["sm_75", "sm_80", "sm_90", "sm_100"] {
        let bytes = check_gpu_kernels(&nvrtc(), architecture).unwrap_or_else(|e| panic!("{architecture}: {e}"));
        assert!(bytes > 10_000, "{bytes} bytes for {architecture}");
    }
}

#[test]
fn what_cannot_be_compiled_is_said() {
    let unknown = check_gpu_kernels(&nvrtc(), "sm_1").unwrap_err().to_string();
    assert!(unknown.contains("NVRTC cannot compile the group norm for sm_1: "), "{unknown}");
    let missing = check_gpu_kernels(&nvrtc().with_file_name("none.so"), "sm_90").unwrap_err().to_string();
    assert!(missing.contains("none.so"), "{missing}");
    compile_gpu_kernels(Device::Cpu).unwrap();
    // A machine without the driver, or without a GPU.
    assert!(compile_gpu_kernels(Device::Cuda(0)).is_err());
}
