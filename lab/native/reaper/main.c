/*
 * reaper FOLDER [PATH...]
 *
 * Ends what runs in a folder and removes the folder and the other paths, once its standard input closes: when a study is
 * done with them, or when the study itself is gone, however it ended. The kernel closes the descriptor of a process that
 * was killed; nothing else can be relied on then. PR_SET_PDEATHSIG would reach one process and not those that it starts,
 * and is cleared by programs that change their user (prctl(2)).
 *
 * What runs in the folder is every process whose working directory lies there and that has no terminal: programs of
 * studies have sessions of their own, and somebody who looks around in the folder with a shell is left alone.
 * Source: proc(5), /proc/PID/cwd and field 7 (tty_nr) of /proc/PID/stat.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * A process that was killed is gone after milliseconds, unless it waits in the kernel. One that was just being started has
 * the terminal of its starter for some more: nothing may be found for a while before all is over.
 */
enum { ROUND_MS = 10, ROUNDS_MAX = 1000, QUIET_ROUNDS = 10, OPEN_FILES_MAX = 16 };

static bool lies_in(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    /* A folder that was removed shows as "PATH (deleted)". */
    return strncmp(path, folder, length) == 0 && strchr("/ ", path[length]) != NULL;
}

static bool has_terminal(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *stat = fopen(path, "re");
    if (!stat)
        return false;
    const char *name_end = fgets(text, sizeof text, stat) ? strrchr(text, ')') : NULL;
    fclose(stat);
    int terminal = 0;
    return name_end && sscanf(name_end, ") %*c %*d %*d %*d %d", &terminal) == 1 && terminal != 0;
}

static bool runs_in(pid_t pid, const char *folder)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/%d/cwd", pid);
    /* It fails for a process that is gone or ended, and for those of others. */
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    return lies_in(path, folder) && !has_terminal(pid);
}

/* Returns how many there were. */
static int kill_all(const char *folder)
{
    int found = 0;
    DIR *processes = opendir("/proc");
    if (!processes)
        return 0;
    for (struct dirent *entry; (entry = readdir(processes));) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0 || pid == getpid() || !runs_in(pid, folder))
            continue;
        kill(pid, SIGKILL);
        found++;
    }
    closedir(processes);
    return found;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    if (remove(path) != 0 && errno != ENOENT)
        fprintf(stderr, "subpage reaper: cannot remove %s: %s\n", path, strerror(errno));
    return 0;
}

int main(int argc, char **argv)
{
    char folder[PATH_MAX], byte;
    if (argc < 2 || !realpath(argv[1], folder) || strcmp(folder, "/") == 0) {
        fputs("this program is started by `subpage study`\n", stderr);
        return 2;
    }
    /* Whatever ends a study from outside must not end this first. */
    for (const int *number = (const int[]){SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGPIPE, 0}; *number; number++)
        signal(*number, SIG_IGN);
    ssize_t got;
    while ((got = read(STDIN_FILENO, &byte, 1)) > 0 || (got < 0 && errno == EINTR))
        ;
    const struct timespec round = {.tv_nsec = ROUND_MS * 1000000};
    int left = 0;
    for (int rounds = 0, quiet = 0; quiet < QUIET_ROUNDS && rounds < ROUNDS_MAX; rounds++) {
        left = kill_all(folder);
        quiet = left > 0 ? 0 : quiet + 1;
        nanosleep(&round, NULL);
    }
    if (left > 0)
        fprintf(stderr, "subpage reaper: %d processes in %s do not end\n", left, folder);
    nftw(folder, remove_one, OPEN_FILES_MAX, FTW_DEPTH | FTW_PHYS);
    for (int i = 2; i < argc; i++)
        nftw(argv[i], remove_one, OPEN_FILES_MAX, FTW_DEPTH | FTW_PHYS);
    return left > 0;
}
