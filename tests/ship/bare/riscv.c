/* On a RISC-V without a C library: two calls of the system that QEMU plays. */
void say(const char *text);
int run(void);
void begin(void);

static long call(long number, long a, long b, long c) {
    register long a0 __asm("a0") = a;
    register long a1 __asm("a1") = b;
    register long a2 __asm("a2") = c;
    register long a7 __asm("a7") = number;
    __asm volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}

void say(const char *text) {
    long n = 0;
    while (text[n]) n++;
    call(64, 1, (long)text, n);
}

__attribute__((naked)) void _start(void) { __asm volatile("andi sp, sp, -16\n call begin"); }

void begin(void) { call(93, run(), 0, 0); }
