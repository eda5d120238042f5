// SPDX-License-Identifier: Apache-2.0
// Bytes of UTF-8 into the text of a JSON string, and back, in one pass: what every byte of a
// session, and of a replay, goes through. escape.py has the same in Python, and a property test holds both to one
// result. It uses only the stable ABI, so one build serves every Python from 3.11 on.

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdbool.h>
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

// The state of one pass: from p to end what is read, from out to limit the room.
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

// The value of four hexadecimal digits; -1 if they are none.
static int hex4(const unsigned char *p)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i], letter = c | 0x20;
        if (c >= '0' && c <= '9')
            value = value * 16 + c - '0';
        else if (letter >= 'a' && letter <= 'f')
            value = value * 16 + letter - 'a' + 10;
        else
            return -1;
    }
    return value;
}

static char *put_utf8(char *out, int c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

// Take the escape at pass->p; whether it is one.
static bool take_escape(struct pass *pass)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const unsigned char *p = pass->p;
    Py_ssize_t left = pass->end - p;
    const char *letter;
    if (left < 2)
        return false;
    if (p[1] != 'u') {
        if (!p[1] || !(letter = strchr(letters, p[1])))
            return false;
        *pass->out++ = meanings[letter - letters];
        pass->p += 2;
        return true;
    }
    int c = left < 6 ? -1 : hex4(p + 2);
    if (c < 0 || (c >= 0xdc00 && c < 0xe000))
        return false;
    pass->p += 6;
    if (c >= 0xd800 && c < 0xdc00) {
        int low = left < 12 || p[6] != '\\' || p[7] != 'u' ? -1 : hex4(p + 8);
        if (low < 0xdc00 || low >= 0xe000)
            return false;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        pass->p += 6;
    }
    pass->out = put_utf8(pass->out, c);
    return true;
}

// Take the text of a JSON string, all of it; false if it is none.
static bool unescape_all(struct pass *pass)
{
    while (pass->p < pass->end) {
        const unsigned char *p = pass->p, *end = pass->end;
        char *out = pass->out;
        Py_ssize_t count = 0;
        while (p < end && *p >= ' ' && *p != '"' && *p != '\\') {
            int size = *p < 0x80 ? 1 : character(p, end - p);
            if (!size)
                return false;
            count++;
            // There is room for three bytes too many.
            if (end - p >= 4)
                memcpy(out, p, 4);
            else
                memcpy(out, p, (size_t)size);
            p += size;
            out += size;
        }
        pass->p = p;
        pass->out = out;
        pass->count += count;
        if (p == end)
            break;
        if (*p != '\\' || !take_escape(pass))
            return false;
        pass->count++;
    }
    return true;
}

PyDoc_STRVAR(unescape_doc,
"unescape(data, begin, end) -> (text, count) or None\n\n"
"What the text of a JSON string stands for, which is data from begin to end: in UTF-8, and its\n"
"count of characters. None if it is no such text.");

static PyObject *unescape(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    char *data, *text, small[4096];
    Py_ssize_t size, begin, end;
    if (given != 3) {
        PyErr_SetString(PyExc_TypeError, "unescape takes data, begin and end");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return NULL;
    begin = PyLong_AsSsize_t(args[1]);
    end = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (begin < 0 || begin > end || end > size) {
        PyErr_SetString(PyExc_ValueError, "begin or end is outside of data");
        return NULL;
    }
    // No text becomes longer by it.
    size = end - begin + 4;
    text = small;
    if (size > (Py_ssize_t)sizeof small && !(text = PyMem_Malloc((size_t)size)))
        return PyErr_NoMemory();
    struct pass pass = {
        .p = (unsigned char *)data + begin,
        .end = (unsigned char *)data + end,
        .out = text,
    };
    PyObject *result;
    if (unescape_all(&pass)) {
        result = Py_BuildValue("y#n", text, (Py_ssize_t)(pass.out - text), pass.count);
    } else {
        Py_INCREF(Py_None);
        result = Py_None;
    }
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
    {"unescape", (PyCFunction)(void (*)(void))unescape, METH_FASTCALL, unescape_doc},
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
