// 64-byte UDP packets as fast as one processor sends them, many to a call, and how many come.
//   flood send ADDRESS PORT SECONDS
//   flood receive PORT         prints packets received a second, once half a second brought none
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 64, SIZE = 64 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static char payload[BATCH][SIZE];

int main(int count, char **arguments) {
    int sending = count == 5 && !strcmp(arguments[1], "send");
    if (!sending && !(count == 3 && !strcmp(arguments[1], "receive"))) {
        fprintf(stderr, "usage: flood send ADDRESS PORT SECONDS | flood receive PORT\n");
        return 2;
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[sending ? 3 : 2]))};
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){payload[i], SIZE};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    if (sending) {
        inet_pton(AF_INET, arguments[2], &name.sin_addr);
        if (connect(fd, (struct sockaddr *)&name, sizeof name)) return perror("connect"), 3;
        for (double end = now() + atof(arguments[4]); now() < end;) sendmmsg(fd, messages, BATCH, 0);
        return 0;
    }
    if (bind(fd, (struct sockaddr *)&name, sizeof name)) return perror("bind"), 3;
    // The first is waited for without an end.
    if (recv(fd, payload[0], SIZE, 0) < 0) return perror("receive"), 3;
    struct timeval silence = {.tv_usec = 500000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof silence);
    double first = now(), last = first;
    long packets = 0;
    for (int got; (got = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL)) > 0;) packets += got, last = now();
    printf("%.0f\n", packets / (last - first));
    return 0;
}
