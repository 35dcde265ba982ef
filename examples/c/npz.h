/* Arrays out of an .npz: a zip (stored or deflated) of .npy files, little-endian, C order. */
#ifndef NPZ_H
#define NPZ_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    char type;       /* 'i' int64, 'f' float32 */
    size_t rows;     /* of a matrix (rows, columns) */
    size_t columns;
    void *data;      /* freed with npz_free */
} npz_array;

/* The matrix `name` (without ".npy") of the file. 0, or -1 with a line in `error`. */
int npz_read(const char *path, const char *name, npz_array *out, char error[256]);
void npz_free(npz_array *array);

#endif
