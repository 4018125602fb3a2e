//! A plugin in Rust that only registers.
#![allow(clippy::missing_safety_doc)]

use std::os::raw::{c_char, c_int, c_void};

#[repr(C)]
pub struct Buffer {
    ptr: *mut c_void,
    len: usize,
}

#[repr(C)]
pub struct PluginApi {
    abi_version: u32,
    call: unsafe extern "C" fn(*const c_char, *const u8, usize, *mut Buffer) -> c_int,
    free_buffer: unsafe extern "C" fn(*mut c_void, usize),
    shutdown: Option<unsafe extern "C" fn()>,
}

const REGISTERED: &str = "{\"ok\":true,\"result\":{\"schema_version\":3,\"metadata\":{\"Name\":\"empty\",\
    \"Version\":\"1\",\"Author\":\"bench\",\"GitHubRepository\":\"none\"},\
    \"capabilities\":{\"request_normalizer\":true}}}";

unsafe extern "C" fn call(_method: *const c_char, _req: *const u8, _len: usize, out: *mut Buffer) -> c_int {
    let reply: Box<[u8]> = REGISTERED.as_bytes().into();
    (*out).len = reply.len();
    (*out).ptr = Box::into_raw(reply) as *mut c_void;
    0
}

unsafe extern "C" fn release(ptr: *mut c_void, len: usize) {
    drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ptr as *mut u8, len)));
}

#[no_mangle]
pub unsafe extern "C" fn cliproxy_plugin_init(_host: *const c_void, plugin: *mut PluginApi) -> c_int {
    plugin.write(PluginApi { abi_version: 1, call, free_buffer: release, shutdown: None });
    0
}
