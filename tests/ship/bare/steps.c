/* Some steps on numbers that mean nothing, and the hash (FNV-1a) of the state after them: without a C library, so that
   it runs on a processor alone, too. `say` and what calls `run` differ. A step may take STACK bytes of the stack. */
#include "hash.h"
#include "net.h"

int run(void);

static net_state state;
static unsigned char scratch[NET_TRAIN_SCRATCH(BATCH)];
static float x[BATCH] INNER;
static int32_t label[BATCH];
static net_metrics metrics;

enum { OWN = 128, PAINTED = STACK + 4096 }; /* of the function that calls a step, at most; below it */

static void paint(volatile unsigned char *top) __attribute__((noinline));
static void paint(volatile unsigned char *top) {
    for (long k = PAINTED; k > OWN; k--) top[-k] = 0xA5;
}

static long depth(volatile unsigned char *top) __attribute__((noinline));
static long depth(volatile unsigned char *top) {
    long k = PAINTED;
    while (k > OWN && top[-k] == 0xA5) k--;
    return k;
}

static int32_t one_step(void) __attribute__((noinline));
static int32_t one_step(void) {
    unsigned char *top = __builtin_frame_address(0);
    paint(top);
    int32_t code = net_train(&state, BATCH, (const float(*) INNER)x, label, &metrics, scratch, sizeof scratch);
    if (depth(top) > STACK + OWN) say("deeper than was stated\n");
    return code;
}

int run(void) {
    int32_t code = net_check(NET_HEADER);
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
        code = one_step();
    }
    if (code) {
        say(net_message(code));
        return 1;
    }
    say_hash(hashed(HASH, &state, sizeof state));
    return 0;
}
