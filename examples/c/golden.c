/* Does this device give a bundle's golden answers? With ONNX Runtime's C API and no Python.
 *
 *     golden BUNDLE VARIANT        e.g. golden news.bundle onnx-int8
 *
 * Runs variants/VARIANT/model.onnx on the token ids of golden.npz and compares the logits with those of the
 * checkpoint. Exit codes as edgewise's: 0 the same model, 2 bad usage or files, 3 another model.
 */
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npz.h"

enum { API = 21, MAX_INPUTS = 3 };
static const double MIN_COSINE = 0.99, MIN_AGREEMENT = 0.97, MAX_ABS_FP32 = 1e-3;

static const OrtApi *ort;

static void check(OrtStatus *status, const char *what)
{
    if (!status) return;
    fprintf(stderr, "golden: %s: %s\n", what, ort->GetErrorMessage(status));
    exit(2);
}

static npz_array read_golden(const char *bundle, const char *name, char type)
{
    char path[4096], error[256];
    npz_array array = {0};
    snprintf(path, sizeof path, "%s/golden.npz", bundle);
    if (npz_read(path, name, &array, error) || array.type != type) {
        fprintf(stderr, "golden: %s\n", array.data ? "golden.npz has other types; pack the bundle again" : error);
        exit(2);
    }
    return array;
}

static OrtSession *open_model(OrtEnv *env, const char *bundle, const char *variant)
{
    char path[4096];
    OrtSessionOptions *options;
    OrtSession *session;
    snprintf(path, sizeof path, "%s/variants/%s/model.onnx", bundle, variant);
    check(ort->CreateSessionOptions(&options), "options");
    check(ort->SetIntraOpNumThreads(options, 1), "threads");
    check(ort->CreateSession(env, path, options, &session), "cannot open the variant");
    ort->ReleaseSessionOptions(options);
    return session;
}

static size_t unpadded(const npz_array *mask, size_t row)
{
    const int64_t *ones = (const int64_t *)mask->data + row * mask->columns;
    size_t length = 0;
    while (length < mask->columns && ones[length]) length++;
    return length;
}

/* Logits of one text: its own length, no padding, batch 1. */
static void answer(OrtSession *session, OrtMemoryInfo *memory, const int64_t *ids, size_t length,
                   float *logits, size_t labels)
{
    OrtAllocator *allocator;
    size_t inputs;
    check(ort->GetAllocatorWithDefaultOptions(&allocator), "allocator");
    check(ort->SessionGetInputCount(session, &inputs), "inputs");
    if (inputs > MAX_INPUTS) {
        fprintf(stderr, "golden: the graph has %zu inputs; a text classifier is expected\n", inputs);
        exit(2);
    }
    int64_t *filled[MAX_INPUTS] = {0}, shape[] = {1, (int64_t)length};
    OrtValue *values[MAX_INPUTS] = {0}, *result = NULL;
    char *names[MAX_INPUTS] = {0}, *output;
    for (size_t i = 0; i < inputs; i++) {
        check(ort->SessionGetInputName(session, i, allocator, &names[i]), "name of an input");
        filled[i] = calloc(length, sizeof **filled);
        for (size_t at = 0; at < length; at++)
            filled[i][at] = !strcmp(names[i], "input_ids") ? ids[at] : !strcmp(names[i], "attention_mask");
        check(ort->CreateTensorWithDataAsOrtValue(memory, filled[i], length * sizeof **filled, shape, 2,
                                                  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &values[i]), "tensor");
    }
    check(ort->SessionGetOutputName(session, 0, allocator, &output), "name of the output");
    check(ort->Run(session, NULL, (const char *const *)names, (const OrtValue *const *)values, inputs,
                   (const char *const *)&output, 1, &result), "cannot run the variant");
    OrtTensorTypeAndShapeInfo *info;
    size_t count;
    float *data;
    check(ort->GetTensorTypeAndShape(result, &info), "shape");
    check(ort->GetTensorShapeElementCount(info, &count), "shape");
    check(ort->GetTensorMutableData(result, (void **)&data), "logits");
    if (count != labels) {
        fprintf(stderr, "golden: %zu logits, not %zu; the variant is of another bundle\n", count, labels);
        exit(2);
    }
    memcpy(logits, data, labels * sizeof *logits);
    ort->ReleaseTensorTypeAndShapeInfo(info);
    ort->ReleaseValue(result);
    check(ort->AllocatorFree(allocator, output), "free");
    for (size_t i = 0; i < inputs; i++) {
        ort->ReleaseValue(values[i]);
        check(ort->AllocatorFree(allocator, names[i]), "free");
        free(filled[i]);
    }
}

static size_t best(const float *logits, size_t labels)
{
    size_t found = 0;
    for (size_t i = 1; i < labels; i++)
        if (logits[i] > logits[found]) found = i;
    return found;
}

int main(int argc, char **argv)
{
    if (argc != 3 || strchr(argv[2], '/')) {
        fprintf(stderr, "usage: golden BUNDLE VARIANT (a bundle's folder, the name of an ONNX variant)\n");
        return 2;
    }
    ort = OrtGetApiBase()->GetApi(API);
    if (!ort) {
        fprintf(stderr, "golden: ONNX Runtime %s is older than API %d\n", OrtGetApiBase()->GetVersionString(), API);
        return 2;
    }
    npz_array ids = read_golden(argv[1], "input_ids", 'i'), mask = read_golden(argv[1], "attention_mask", 'i');
    npz_array want = read_golden(argv[1], "logits", 'f');
    if (ids.rows != want.rows || mask.rows != ids.rows || mask.columns != ids.columns) {
        fprintf(stderr, "golden: arrays of different sizes; pack the bundle again\n");
        return 2;
    }
    OrtEnv *env;
    OrtMemoryInfo *memory;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "golden", &env), "environment");
    check(ort->DisableTelemetryEvents(env), "telemetry");
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "memory");
    OrtSession *session = open_model(env, argv[1], argv[2]);

    double worst = 0, product = 0, ours = 0, theirs = 0;
    size_t same = 0, labels = want.columns;
    float *logits = calloc(labels, sizeof *logits);
    for (size_t row = 0; row < ids.rows; row++) {
        const float *expected = (const float *)want.data + row * labels;
        answer(session, memory, (const int64_t *)ids.data + row * ids.columns, unpadded(&mask, row), logits, labels);
        for (size_t i = 0; i < labels; i++) {
            double off = fabs((double)logits[i] - expected[i]);
            worst = off <= worst ? worst : off; /* a NaN stays */
            product += (double)logits[i] * expected[i];
            ours += (double)logits[i] * logits[i];
            theirs += (double)expected[i] * expected[i];
        }
        same += best(logits, labels) == best(expected, labels);
    }
    double cosine = product / sqrt(ours * theirs), agreement = (double)same / (double)ids.rows;
    int exact = strstr(argv[2], "fp32") != NULL;
    int passed = cosine >= MIN_COSINE && agreement >= MIN_AGREEMENT && (!exact || worst <= MAX_ABS_FP32);
    printf("%s: ONNX Runtime %s, %s: same label %.4f, cosine %.5f, max abs %.2g, n %zu: %s\n", argv[1],
           OrtGetApiBase()->GetVersionString(), argv[2], agreement, cosine, worst, ids.rows,
           passed ? "the same model" : "ANOTHER MODEL");
    free(logits);
    npz_free(&ids);
    npz_free(&mask);
    npz_free(&want);
    ort->ReleaseSession(session);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseEnv(env);
    return passed ? 0 : 3;
}
