/* On an operating system. */
#include <stdio.h>

void say(const char *text);
int run(void);

void say(const char *text) { fputs(text, stdout); }

int main(void) { return run(); }
