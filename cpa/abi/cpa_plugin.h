/*
 * cpa_plugin.h - the contract between CPA and a native plugin, ABI version 1.
 *
 * A plugin is one dynamic library that exports `cliproxy_plugin_init`. Everything else that passes between the two
 * sides is JSON in length-counted buffers. A library built against this header also runs in CLIProxyAPI, and the other
 * way round: names of types are free, layouts and rules below are not.
 *
 * All integers have the machine's byte order, all structures the compiler's default alignment. On 64-bit targets:
 *
 *     cliproxy_buffer      16 bytes   ptr 0, len 8
 *     cliproxy_host_api    32 bytes   abi_version 0, host_ctx 8, call 16, free_buffer 24
 *     cliproxy_plugin_api  32 bytes   abi_version 0, call 8, free_buffer 16, shutdown 24
 *
 * LOADING. The host opens a private copy of the file (RTLD_NOW | RTLD_LOCAL), so the library may be replaced while it
 * runs, and calls `cliproxy_plugin_init` once with a zeroed table to fill in. It is refused, in this order, when init
 * returns anything but 0, when `abi_version` is not 1, when `call` or `free_buffer` is NULL. If the table has a
 * `shutdown` by then, it is called all the same. The library is never unmapped.
 *
 * WHERE IT RUNS. By default in a process of its own (argv `cpa -config FILE`, the host's working directory and
 * environment; output on descriptors 1 and 2 becomes log lines, 0 is /dev/null), else in the process of the host.
 * Signals belong to the host: install no handlers and no alarms.
 *
 * OWNERSHIP.
 *     what                               allocated by   freed by   how
 *     call of the plugin: method, req    host           host       after the call returned; copy what you keep
 *     call of the plugin: *out           plugin         host       plugin's free_buffer(ptr, len), see below
 *     call of the host:   method, req    plugin         plugin     after the call returned
 *     call of the host:   *out           host           plugin     host's free_buffer(ptr, len); NULL is fine
 * The host calls the plugin's `free_buffer` exactly once for every `out->ptr` that is not NULL, with exactly the length
 * that the plugin reported - also when that is 0, when the return value is not 0, and when the reply is too large to be
 * read. A length larger than the memory behind `ptr` cannot be noticed by the host: it is undefined behaviour.
 *
 * THREADS. Any thread, any number at a time, no affinity; the host serialises nothing. A plugin may call the host from
 * any thread, including its own, inside a call or after it, and may be called again while it waits for the host.
 *
 * SIZES. Requests and replies are limited in both directions (a setting of the host, always below 2^31). A reply above
 * the limit fails the call that it answers; a call of the host with a larger request, or with a method name above
 * CPA_MAX_METHOD_BYTES, returns 1.
 *
 * THE END. No new calls arrive, running ones may finish, then `shutdown` runs once, with a time limit. The host still
 * answers while it runs. Later calls of the host return 1. Then the process is ended without atexit handlers.
 */
#ifndef CPA_PLUGIN_H
#define CPA_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLIPROXY_ABI_VERSION 1u
#define CLIPROXY_PLUGIN_ENTRY "cliproxy_plugin_init"
#define CPA_MAX_METHOD_BYTES 255u

/* Memory with its length. (NULL, 0) is "nothing"; NULL with a length means the same. */
typedef struct {
    void *ptr;
    size_t len;
} cliproxy_buffer;

/*
 * Plugin calls host. `host_ctx` goes back unchanged: it says who is calling. `method` is NUL-terminated UTF-8, `req` a
 * bare JSON object or nothing; `out` may be NULL, then the answer is thrown away. Blocks until the host has answered.
 *
 * Returns 0 with an envelope in *out, for success ({"ok":true,"result":...}) and for failure
 * ({"ok":false,"error":{...}}); 1 with nothing in *out when the host could not be asked: unknown or closed context,
 * NULL method, sizes above the limits, no memory.
 */
typedef int (*cliproxy_host_call_fn)(void *host_ctx, const char *method, const uint8_t *req, size_t req_len,
                                     cliproxy_buffer *out);

/*
 * Host calls plugin. `method` is NUL-terminated UTF-8, `req` a bare JSON object of at least two bytes, `out` is zeroed.
 * Return 0 with an envelope in *out. Other values mean failure; with an error envelope in *out, that error.
 */
typedef int (*cliproxy_plugin_call_fn)(const char *method, const uint8_t *req, size_t req_len, cliproxy_buffer *out);

typedef void (*cliproxy_free_fn)(void *ptr, size_t len);
typedef void (*cliproxy_shutdown_fn)(void);

/* Filled in by the host. Valid, at the same address, until the process ends: keep the pointer. */
typedef struct {
    uint32_t abi_version;
    void *host_ctx;
    cliproxy_host_call_fn call;
    cliproxy_free_fn free_buffer;
} cliproxy_host_api;

/* Filled in by the plugin. `shutdown` may stay NULL. */
typedef struct {
    uint32_t abi_version;
    cliproxy_plugin_call_fn call;
    cliproxy_free_fn free_buffer;
    cliproxy_shutdown_fn shutdown;
} cliproxy_plugin_api;

/* The one symbol that a plugin exports. The host answers calls from inside it, but a plugin should not need that. */
typedef int (*cliproxy_plugin_init_fn)(const cliproxy_host_api *host, cliproxy_plugin_api *plugin);

#ifdef CPA_PLUGIN_IMPLEMENTATION /* define it in the plugin for a checked prototype of the exported symbol */
__attribute__((visibility("default"))) int cliproxy_plugin_init(const cliproxy_host_api *host,
                                                                cliproxy_plugin_api *plugin);
#endif

#ifdef __cplusplus
}
#endif

#endif
