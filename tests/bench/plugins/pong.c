/*
 * The other end of the barest plugin call: reads a request of as many bytes as its head says from descriptor 0, answers
 * with as many as it says. Head: two 32-bit numbers, sizes of request and reply, without the head.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 64 << 20 };

int main(void) {
    char *buffer = malloc(MOST);
    uint32_t *head = (uint32_t *)buffer;
    size_t have = 0;
    if (buffer == NULL)
        return 1;
    for (;;) {
        ssize_t got = read(0, buffer + have, MOST - have);
        if (got <= 0)
            return got < 0 && errno == EINTR ? 1 : 0;
        have += (size_t)got;
        if (have < 8 || have < 8 + (size_t)head[0])
            continue;
        size_t left = head[1];
        have = 0;
        for (const char *at = buffer; left > 0;) {
            ssize_t sent = write(0, at, left);
            if (sent < 0)
                return 1;
            left -= (size_t)sent;
        }
    }
}
