#include "npz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_BYTES = 64 << 20, END_SIZE = 22, CENTRAL_SIZE = 46, LOCAL_SIZE = 30 };

static int fail(char error[256], const char *path, const char *what)
{
    snprintf(error, 256, "%.180s: %s", path, what);
    return -1;
}

static uint32_t le(const unsigned char *at, int bytes)
{
    uint32_t value = 0;
    while (bytes--) value = value << 8 | at[bytes];
    return value;
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    long end = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    unsigned char *data = end > 0 && end <= MAX_BYTES ? malloc((size_t)end) : NULL;
    if (data && (fseek(file, 0, SEEK_SET) || fread(data, 1, (size_t)end, file) != (size_t)end)) {
        free(data);
        data = NULL;
    }
    fclose(file);
    *size = data ? (size_t)end : 0;
    return data;
}

static unsigned char *inflate_member(const unsigned char *from, uint32_t packed, uint32_t size)
{
    z_stream stream = {.next_in = (unsigned char *)from, .avail_in = packed};
    unsigned char *data = malloc(size ? size : 1);
    if (!data || inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
        free(data);
        return NULL;
    }
    stream.next_out = data;
    stream.avail_out = size;
    int whole = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    if (whole) return data;
    free(data);
    return NULL;
}

/* The bytes of the member, out of the zip's central directory; NULL where it is missing or damaged. */
static unsigned char *member(const unsigned char *zip, size_t size, const char *name, uint32_t *length)
{
    if (size < END_SIZE) return NULL;
    size_t end = size - END_SIZE, lowest = size > END_SIZE + 65535 ? size - END_SIZE - 65535 : 0;
    while (memcmp(zip + end, "PK\5\6", 4)) {
        if (end == lowest) return NULL;
        end--;
    }
    uint32_t count = le(zip + end + 10, 2);
    size_t at = le(zip + end + 16, 4);
    for (; count--; ) {
        if (at > size || size - at < CENTRAL_SIZE || memcmp(zip + at, "PK\1\2", 4)) return NULL;
        const unsigned char *entry = zip + at;
        uint32_t method = le(entry + 10, 2), packed = le(entry + 20, 4), whole = le(entry + 24, 4);
        uint32_t named = le(entry + 28, 2), extra = le(entry + 30, 2), comment = le(entry + 32, 2);
        size_t local = le(entry + 42, 4);
        if (size - at - CENTRAL_SIZE < named) return NULL;
        if (named != strlen(name) || memcmp(entry + CENTRAL_SIZE, name, named)) {
            at += CENTRAL_SIZE + named + extra + comment;
            continue;
        }
        if (local > size || size - local < LOCAL_SIZE || memcmp(zip + local, "PK\3\4", 4)) return NULL;
        size_t start = local + LOCAL_SIZE + le(zip + local + 26, 2) + le(zip + local + 28, 2);
        if (start > size || packed > size - start || whole > MAX_BYTES) return NULL;
        *length = whole;
        if (method == 8) return inflate_member(zip + start, packed, whole);
        unsigned char *data = method == 0 && packed == whole ? malloc(whole ? whole : 1) : NULL;
        if (data) memcpy(data, zip + start, whole);
        return data;
    }
    return NULL;
}

/* The header of a .npy (format 1.0): its type and shape, and where the numbers start. */
static int parse(const unsigned char *npy, uint32_t size, npz_array *out, size_t *start)
{
    if (size < 10 || memcmp(npy, "\x93NUMPY\1", 7)) return -1;
    size_t header = le(npy + 8, 2);
    if (header > size - 10 || header >= 1024) return -1;
    char text[1024];
    memcpy(text, npy + 10, header);
    text[header] = 0;
    out->type = strstr(text, "'<i8'") ? 'i' : strstr(text, "'<f4'") ? 'f' : 0;
    const char *shape = strstr(text, "'shape': (");
    if (!out->type || !shape || !strstr(text, "'fortran_order': False")) return -1;
    unsigned long rows, columns;
    if (sscanf(shape, "'shape': (%lu, %lu)", &rows, &columns) != 2) return -1;
    size_t each = out->type == 'i' ? 8 : 4;
    if (!rows || !columns || rows > MAX_BYTES || columns > MAX_BYTES / rows / each) return -1;
    out->rows = rows;
    out->columns = columns;
    *start = 10 + header;
    return size - *start == rows * columns * each ? 0 : -1;
}

int npz_read(const char *path, const char *name, npz_array *out, char error[256])
{
    size_t size, start;
    uint32_t length;
    char file[64];
    snprintf(file, sizeof file, "%s.npy", name);
    unsigned char *zip = read_file(path, &size);
    if (!zip) return fail(error, path, "cannot be read; name the golden.npz of a bundle");
    unsigned char *npy = member(zip, size, file, &length);
    free(zip);
    if (!npy) return fail(error, path, "an array is missing or damaged; copy the bundle again");
    if (parse(npy, length, out, &start)) {
        free(npy);
        return fail(error, path, "not a matrix of int64 or float32; pack the bundle again");
    }
    size_t bytes = length - start;
    out->data = malloc(bytes);
    if (out->data) memcpy(out->data, npy + start, bytes);
    free(npy);
    return out->data ? 0 : fail(error, path, "out of memory");
}

void npz_free(npz_array *array)
{
    free(array->data);
    array->data = NULL;
}
