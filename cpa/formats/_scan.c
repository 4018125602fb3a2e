/* Scans of bytes that Python cannot do at the speed of memory; `scan.py` says what each means and can do without them.

   Plain C, no intrinsics: eight bytes at a time are enough, and compilers make vectors of the loops by themselves. The
   stable API, so that one build serves every CPython from 3.11 on. Nothing here allocates or keeps anything, and what
   it reads is held by a buffer view for as long as it is read. */

#define _GNU_SOURCE /* memmem */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)
#define BLOCK 128 /* bytes counted into one byte: at most 255 */

static uint64_t word_at(const unsigned char *place) {
    uint64_t word;
    memcpy(&word, place, sizeof word);
    return word;
}

/* The first byte from *place* on that is not ASCII, or *end*. */
static const unsigned char *past_ascii(const unsigned char *place, const unsigned char *end) {
    while (end - place >= 32) {
        uint64_t seen = word_at(place) | word_at(place + 8) | word_at(place + 16) | word_at(place + 24);
        if (seen & HIGH_BITS)
            break;
        place += 32;
    }
    while (end - place >= 8 && !(word_at(place) & HIGH_BITS))
        place += 8;
    while (place < end && *place < 0x80)
        place++;
    return place;
}

static int continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

/* Whether *byte* is the second of a sequence that *lead*, of three or four bytes, begins: no overlong forms, no
   surrogates, nothing above U+10FFFF (Unicode, table 3-7). */
static int follows(unsigned char lead, unsigned char byte) {
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return low <= byte && byte <= high;
}

static int valid(const unsigned char *place, const unsigned char *end) {
    for (;;) {
        place = past_ascii(place, end);
        /* Other scripts come in runs. */
        while (place < end && *place >= 0x80) {
            unsigned char lead = *place;
            Py_ssize_t left = end - place;
            if (lead < 0xC2 || lead > 0xF4)
                return 0;
            if (lead < 0xE0) {
                if (left < 2 || !continues(place[1]))
                    return 0;
                place += 2;
            } else if (lead < 0xF0) {
                if (left < 3 || !follows(lead, place[1]) || !continues(place[2]))
                    return 0;
                place += 3;
            } else {
                if (left < 4 || !follows(lead, place[1]) || !continues(place[2]) || !continues(place[3]))
                    return 0;
                place += 4;
            }
        }
        if (place == end)
            return 1;
    }
}

static PyObject *is_utf8(PyObject *module, PyObject *data) {
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    const unsigned char *start = view.buf;
    int sound = valid(start, start + view.len);
    PyBuffer_Release(&view);
    return PyBool_FromLong(sound);
}

static PyObject *count_chars(PyObject *module, PyObject *data) {
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    const unsigned char *bytes = view.buf;
    Py_ssize_t plain = 0, wide = 0;
    for (Py_ssize_t at = 0; at < view.len; at += BLOCK) {
        Py_ssize_t size = view.len - at < BLOCK ? view.len - at : BLOCK;
        unsigned char ascii = 0, leads = 0;
        for (Py_ssize_t i = 0; i < size; i++) {
            ascii += bytes[at + i] < 0x80;
            leads += bytes[at + i] >= 0xC0;
        }
        plain += ascii;
        wide += leads;
    }
    PyBuffer_Release(&view);
    return Py_BuildValue("nn", plain, wide);
}

/* What a JSON string begins with, white space and its usual escapes passed over: see `text_start` in scan.py. */
static long start_of(const unsigned char *place, const unsigned char *end) {
    if (place == end || *place != '"')
        return 0;
    for (place++; place < end; place++) {
        unsigned char byte = *place;
        if (byte == ' ' || byte == '\t')
            continue;
        if (byte != '\\')
            return byte > ' ' && byte < 0x7F && byte != '"' && byte != '[' ? 2 : 1;
        if (++place == end)
            return 1;
        if (*place != 'n' && *place != 'r' && *place != 't')
            return *place == '"' || *place == '\\' || *place == '/' ? 2 : 1;
    }
    return 1;
}

static PyObject *text_start(PyObject *module, PyObject *data) {
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    const unsigned char *start = view.buf;
    long found = start_of(start, start + view.len);
    PyBuffer_Release(&view);
    return PyLong_FromLong(found);
}

/* The C library's search, four times as fast as Python's on long bodies. */
static PyObject *contains(PyObject *module, PyObject *args) {
    Py_buffer data, part;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*:contains", &data, &part))
        return NULL;
    int found = memmem(data.buf, (size_t)data.len, part.buf, (size_t)part.len) != NULL;
    PyBuffer_Release(&data);
    PyBuffer_Release(&part);
    return PyBool_FromLong(found);
}

static PyMethodDef methods[] = {
    {"is_utf8", is_utf8, METH_O, NULL},
    {"count_chars", count_chars, METH_O, NULL},
    {"text_start", text_start, METH_O, NULL},
    {"contains", contains, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cpa.formats._scan",
    .m_doc = "Scans of bytes: see cpa.formats.scan.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__scan(void) { return PyModuleDef_Init(&definition); }
