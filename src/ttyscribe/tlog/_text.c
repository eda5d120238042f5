// SPDX-License-Identifier: Apache-2.0
// Bytes of UTF-8 into the text of a JSON string, in one pass: what every byte of a session
// goes through. escape.py has the same in Python, and a property test holds both to one
// result. It uses only the stable ABI, so one build serves every Python from 3.11 on.

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

// What a character of ASCII becomes (RFC 8259, section 7): 0 stays as it is, 'u' is \u00XX,
// any other is a backslash and that letter.
static const char escapes[128] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    ['"'] = '"',
    ['\\'] = '\\',
};

enum { ESCAPE_MAX = 6 };

// How many bytes the character beyond ASCII at p takes (The Unicode Standard, table 3-7); 0 if
// it is none, or its end is not there. p has left bytes, at least one.
static int character(const unsigned char *p, Py_ssize_t left)
{
    unsigned char lead = p[0], low = 0x80, high = 0xbf;
    int size;
    if (lead < 0xc2)
        return 0;
    if (lead < 0xe0) {
        size = 2;
    } else if (lead < 0xf0) {
        size = 3;
        if (lead == 0xe0)
            low = 0xa0;
        else if (lead == 0xed)
            high = 0x9f;
    } else if (lead < 0xf5) {
        size = 4;
        if (lead == 0xf0)
            low = 0x90;
        else if (lead == 0xf4)
            high = 0x8f;
    } else {
        return 0;
    }
    if (left < size || p[1] < low || p[1] > high)
        return 0;
    for (int i = 2; i < size; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return size;
}

// The room that the character at p needs; 0 if it is none.
static int needed(const unsigned char *p, Py_ssize_t left)
{
    if (*p >= 0x80)
        return character(p, left);
    return !escapes[*p] ? 1 : escapes[*p] == 'u' ? ESCAPE_MAX : 2;
}

// The state of one pass: from p to end the text, from out to limit the room.
struct pass {
    const unsigned char *p, *end;
    char *out, *limit;
    Py_ssize_t count;
};

// Go as far as text and room allow; whether it was the room that ended it.
static int run(struct pass *pass)
{
    static const char hex[] = "0123456789abcdef";
    // Copies, because what out points to might be the struct, for all the compiler knows.
    const unsigned char *p = pass->p, *const end = pass->end;
    char *out = pass->out, *const limit = pass->limit;
    Py_ssize_t count = pass->count;
    int full = 0;
    while (p < end) {
        // As many bytes as have room whatever they are, or else one character that may have.
        Py_ssize_t sure = (limit - out) / ESCAPE_MAX;
        const unsigned char *till = sure >= end - p ? end : p + sure;
        if (!sure) {
            full = limit - out < needed(p, end - p);
            if (full)
                break;
            till = p + 1;
        }
        while (p < till) {
            unsigned char c = *p;
            if (c < 0x80) {
                char escape = escapes[c];
                p++;
                count++;
                if (!escape) {
                    *out++ = (char)c;
                } else if (escape != 'u') {
                    *out++ = '\\';
                    *out++ = escape;
                } else {
                    memcpy(out, "\\u00", 4);
                    out[4] = hex[c >> 4];
                    out[5] = hex[c & 15];
                    out += ESCAPE_MAX;
                }
            } else {
                int size = character(p, end - p);
                if (!size)
                    goto done;
                count++;
                do
                    *out++ = (char)*p++;
                while (--size);
            }
        }
    }
done:
    pass->p = p;
    pass->out = out;
    pass->count = count;
    return full;
}

PyDoc_STRVAR(fit_doc,
"fit(data, at, room) -> (text, count, end, full)\n\n"
"The characters that the UTF-8 data holds from at on, as many as take at most room bytes as\n"
"the text of a JSON string: that text, their count, where in data they end, and whether it\n"
"was room that ended them, not the end of data, invalid bytes or a cut-off character.");

static PyObject *fit(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    char *data, *text, small[4096];
    Py_ssize_t size, at, room;
    if (given != 3) {
        PyErr_SetString(PyExc_TypeError, "fit takes data, at and room");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return NULL;
    at = PyLong_AsSsize_t(args[1]);
    room = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (at < 0 || at > size) {
        PyErr_SetString(PyExc_ValueError, "at is outside of data");
        return NULL;
    }
    if (room < 0)
        room = 0;
    // More than that the rest can't become.
    if ((size - at) < room / ESCAPE_MAX)
        room = (size - at) * ESCAPE_MAX;
    text = small;
    if (room > (Py_ssize_t)sizeof small && !(text = PyMem_Malloc((size_t)room)))
        return PyErr_NoMemory();
    struct pass pass = {
        .p = (unsigned char *)data + at,
        .end = (unsigned char *)data + size,
        .out = text,
        .limit = text + room,
    };
    int full = run(&pass);
    PyObject *result = NULL;
    PyObject *json = PyBytes_FromStringAndSize(text, pass.out - text);
    if (json)
        result = Py_BuildValue("NnnO", json, pass.count, (Py_ssize_t)(pass.p - (unsigned char *)data),
                               full ? Py_True : Py_False);
    if (text != small)
        PyMem_Free(text);
    return result;
}

PyDoc_STRVAR(valid_doc,
"valid(data) -> end\n\n"
"Where the whole characters of UTF-8 that data begins with end.");

static PyObject *valid(PyObject *Py_UNUSED(module), PyObject *argument)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(argument, &data, &size) < 0)
        return NULL;
    const unsigned char *begin = (unsigned char *)data, *p = begin, *end = begin + size;
    while (p < end) {
        uint64_t eight;
        if (end - p >= 8 && (memcpy(&eight, p, 8), !(eight & 0x8080808080808080))) {
            p += 8;
            continue;
        }
        int length = *p < 0x80 ? 1 : character(p, end - p);
        if (!length)
            break;
        p += length;
    }
    return PyLong_FromSsize_t(p - begin);
}

static PyMethodDef methods[] = {
    {"fit", (PyCFunction)(void (*)(void))fit, METH_FASTCALL, fit_doc},
    {"valid", valid, METH_O, valid_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ttyscribe.tlog._text",
    .m_doc = "UTF-8 into the text of JSON strings.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__text(void)
{
    return PyModuleDef_Init(&definition);
}
