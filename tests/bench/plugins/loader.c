/* The least process that has a library loaded: what it needs, any host of that library needs. */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char byte;
    if (argc != 2 || dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) == NULL) {
        fprintf(stderr, "%s\n", argc != 2 ? "expected the path of a library" : dlerror());
        return 1;
    }
    if (write(1, "loaded\n", 7) != 7)
        return 1;
    return read(0, &byte, 1) < 0;
}
