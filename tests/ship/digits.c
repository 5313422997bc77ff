/* A training of the digits: `digits EPOCHS` reads images.bin and labels.bin, writes state.bin and logits.bin. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ORDER NET_ORDER_SCRATCH(N)
#define EPOCH NET_EPOCH_SCRATCH(64)

static float images[N][64];
static int32_t labels[N];
static uint32_t order[N];
static net_state state;
static net_prepared prepared;
static float logits[N][10];

static int32_t rows(void *user, uint32_t example, float x[64], int32_t *label) {
    ++*(long *)user;
    for (int k = 0; k < 64; k++) x[k] = images[example][k];
    *label = labels[example];
    return 0;
}

static void file(const char *name, const char *mode, void *data, size_t bytes) {
    FILE *f = fopen(name, mode);
    size_t done = f ? (mode[0] == 'r' ? fread(data, 1, bytes, f) : fwrite(data, 1, bytes, f)) : 0;
    if (!f || done != bytes || fclose(f)) {
        perror(name);
        exit(1);
    }
}

/* So many bytes, and behind the last one a page that may not be touched. */
static void *guarded(size_t bytes) {
    const size_t page = 65536;
    size_t whole = (bytes + page - 1) / page * page;
    char *start = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == (char *)MAP_FAILED || mprotect(start + whole, page, PROT_NONE)) {
        perror("mmap");
        exit(1);
    }
    return start + (whole - bytes);
}

static void must(int32_t code) {
    if (code) {
        printf("%s\n", net_message(code));
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 2) return 1;
    int epochs = atoi(arguments[1]);
    file("images.bin", "rb", images, sizeof images);
    file("labels.bin", "rb", labels, sizeof labels);
    must(net_check(NET_HEADER));
    must(net_init(&state, 42, 60 * ((N + 63) / 64), NULL, NET_INIT_SCRATCH));
    void *for_order = guarded(ORDER), *for_epoch = guarded(EPOCH), *for_predict = guarded(NET_PREDICT_SCRATCH(N));
    void *for_evaluate = guarded(NET_EVALUATE_SCRATCH(N));
    net_metrics metrics;
    long asked = 0;
    for (int k = 0; k < epochs; k++) {
        must(net_order(order, N, state.seed, state.epoch, for_order, ORDER));
        must(net_epoch(&state, rows, &asked, order, N, 64, &metrics, for_epoch, EPOCH));
    }
    printf("%a %a\n", (double)metrics.loss, (double)metrics.accuracy);
    must(net_evaluate(&state.weights, N, (const float (*)[64])images, labels, &metrics, for_evaluate,
                      NET_EVALUATE_SCRATCH(N)));
    printf("%a %a %ld\n", (double)metrics.loss, (double)metrics.accuracy, asked);
    must(net_prepare(&state.weights, &prepared, NULL, NET_PREPARE_SCRATCH));
    must(net_predict(&prepared, N, (const float (*)[64])images, logits, for_predict, NET_PREDICT_SCRATCH(N)));
    file("state.bin", "wb", &state, sizeof state);
    file("logits.bin", "wb", logits, sizeof logits);
    return 0;
}
