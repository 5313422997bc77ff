/* FNV-1a, and how it is said, without a C library. */
#include <stddef.h>
#include <stdint.h>

#define HASH 2166136261u /* of no bytes */

void say(const char *text);

static inline uint32_t hashed(uint32_t hash, const void *data, size_t bytes) {
    const unsigned char *byte = data;
    for (size_t k = 0; k < bytes; k++) hash = (hash ^ byte[k]) * 16777619u;
    return hash;
}

static inline void say_hash(uint32_t hash) {
    char text[10];
    for (int k = 0; k < 8; k++) text[k] = "0123456789abcdef"[hash >> (28 - 4 * k) & 15];
    text[8] = '\n';
    text[9] = 0;
    say(text);
}
