/* Some steps on numbers that mean nothing, and the hash (FNV-1a) of the state after them: without a C library, so that
   it runs on a processor alone, too. `say` and what calls `run` differ. */
#include "hash.h"
#include "net.h"

int run(void);

static net_state state;
static unsigned char scratch[NET_TRAIN_SCRATCH(BATCH)];
static float x[BATCH] INNER;
static int32_t label[BATCH];

int run(void) {
    net_metrics metrics;
    int32_t code = net_check(NET_LAYOUT);
    if (!code) code = net_init(&state, 7, 100, scratch, sizeof scratch);
    uint32_t r = 1;
    for (int step = 0; step < STEPS && !code; step++) {
        float *to = (float *)x;
        for (unsigned k = 0; k < sizeof x / sizeof *to; k++) {
            r = r * 1664525u + 1013904223u;
            to[k] = (float)(r >> 8) * 5.9604644775390625e-08f;
        }
        for (int k = 0; k < BATCH; k++) {
            r = r * 1664525u + 1013904223u;
            label[k] = (int32_t)(r >> 28) % 10;
        }
        code = net_train(&state, BATCH, (const float(*) INNER)x, label, &metrics, scratch, sizeof scratch);
    }
    if (code) {
        say(net_message(code));
        return 1;
    }
    say_hash(hashed(HASH, &state, sizeof state));
    return 0;
}
