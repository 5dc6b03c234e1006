// rr IP PORT SECONDS: round trips of one byte over TCP, one at a time; prints
// their median in microseconds. Without SECONDS it is the other end.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
static int by_value(const void *a, const void *b) {
	double x = *(double *)a, y = *(double *)b;
	return (x > y) - (x < y);
}
int main(int count, char **given) {
	if (count < 3) return 2;
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(given[2]))};
	inet_pton(AF_INET, given[1], &at.sin_addr);
	char byte = 0;
	if (count == 3) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (bind(fd, (void *)&at, sizeof at) || listen(fd, 8)) { perror("listen"); return 1; }
		for (int peer; (peer = accept(fd, 0, 0)) >= 0; close(peer)) {
			setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
			while (read(peer, &byte, 1) == 1 && write(peer, &byte, 1) == 1) {}
		}
		return 1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(fd, (void *)&at, sizeof at)) { perror("connect"); return 1; }
	size_t room = 4000000, n = 0;
	double *took = malloc(room * sizeof *took), end = now() + atof(given[3]) * 1e6;
	for (double from = now(); from < end && n < room;) {
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) { perror("round trip"); return 1; }
		double to = now();
		took[n++] = to - from;
		from = to;
	}
	qsort(took, n, sizeof *took, by_value);
	printf("%.1f\n", took[n / 2]);
}
