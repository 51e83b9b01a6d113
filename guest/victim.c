/*
 * victim: a program whose memory proves itself. It runs in the demo guest and keeps tens of MiB under random
 * updates; any byte that is lost, torn or from another moment in time makes it print a TORN line and stop.
 *
 * What it keeps, each in a mapping of its own, all locked into memory:
 *
 *   pages[]    the data. 4 KiB each: word 0 magic, word 1 its own index, words 2..511 content (text, records,
 *              counters, pointers, zeros, noise: about as compressible as real memory).
 *   table[]    per page: the sum its 512 words must have, and the number of the write that made it so.
 *   journal[]  a ring of the last 1,024 writes: number, page, sum of the page, digest after the write.
 *   root       step, writes, PRNG state, digest of all history, sum over the whole table, and a sum of itself.
 *   mirror     a second copy of root on another page, renewed at the end of each step.
 *   r15        the step number once more, in a CPU register only: it travels with the device state, not with RAM.
 *
 * The sum of a page is the sum over i of h(i, word i), h being a keyed 64x64 -> 128 bit multiplication folded to
 * 64 bits: an 8-byte write changes it in O(1), and exchanged, stale or torn words do not cancel out. The table is
 * summed the same way into root. So nothing can go back in time alone: an old line contradicts the table, an old
 * page with its old table entry contradicts root, an old root contradicts mirror, journal and register.
 *
 * A *write* is an 8-byte store into a page (one line of it), a whole new page, or a copy of another page; 16 writes
 * make a *step*. Whatever is about to be overwritten or copied is verified first, so damage is never covered up. All
 * of it depends on the seed and the step number alone, never on time: `victim until=N` on any machine computes
 * the digest that the guest must print at step N.
 *
 * Verification: continuously (a pass over all pages in about 2 s), in full at one instant every verify_ms (kept
 * below 1/20 of the time), and at once when the line `verify` arrives on stdin. Verification never writes to what
 * it verifies.
 *
 * Prints, each line in one write(2):
 *   victim step=<n> pages=<pages written> verify=<full verifications passed> digest=<16 hex digits>
 *   victim verified step=<n> ok
 *   victim TORN step=<n> page=<index or -1> why=<register|root|mirror|magic|index|content|table|journal> ...
 *
 * Arguments (KEY=VALUE; the guest's init passes kernel arguments victim_KEY=VALUE on):
 *   mib=32  seed=1  rate=1250 steps/s (0: no limit)  report_ms=25  verify_ms=1500  until=STEP: stop there and print
 *   pattern=mixed        94 % words, 4 % pages, 2 % copies; three quarters of them in a moving eighth of the memory
 *   pattern=words|pages|copies   one kind only, evenly scattered
 *   pattern=scattered:N  8-byte writes on N distinct pages in every 25 ms (sets the rate)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
typedef unsigned __int128 u128;

enum { PAGE_WORDS = 512, HEADER_WORDS = 2, STEP_WRITES = 16, JOURNAL_ENTRIES = 1024 };
enum { OP_FILL, OP_WORD, OP_PAGE, OP_COPY };

#define PAGE_MAGIC 0x4349564750425553ull /* "SUBPGVIC" in memory */
#define ROOT_MAGIC 0x544f4f5250425553ull /* "SUBPROOT" in memory */
#define MS 1000000ull                    /* ns */
#define TICK_NS (5 * MS)
#define PASS_NS (2000 * MS)  /* one continuous verification pass */
#define DEBT_NS (25 * MS)    /* work missed by more than this is dropped, not caught up with */

typedef struct { u64 word[PAGE_WORDS]; } page_t;
typedef struct { u64 sum, write; } entry_t;
typedef struct { u64 write, page, sum, digest; } journal_t;
typedef struct { u64 magic, seed, pages, step, writes, random, digest, table_sum, sum; } root_t;

static page_t *pages;
static entry_t *table;
static journal_t *journal;
static root_t *root, *mirror;
static u64 scattered_stride;

/* The step number in a register only. libc preserves r15 (callee-saved); nothing else here touches it. */
register u64 step_in_register __asm__("r15");

/* ---- sums ---------------------------------------------------------------------------------------------------- */

#define GOLDEN 0x9e3779b97f4a7c15ull

static inline u64 fold(u64 a, u64 b) {
  u128 product = (u128)a * b;
  return (u64)product ^ (u64)(product >> 64);
}

static inline u64 hash_word(u64 i, u64 word) { return fold(word ^ (i + 1) * GOLDEN, 0xd6e8feb86659fd93ull); }

static u64 sum_words(const u64 *word, u64 count) {
  u64 sum = 0;
  for (u64 i = 0; i < count; i++) sum += hash_word(i, word[i]);
  return sum;
}

static u64 sum_page(u64 page) { return sum_words(pages[page].word, PAGE_WORDS); }

static u64 hash_entry(u64 page, const entry_t *entry) {
  return hash_word(2 * page, entry->sum) + hash_word(2 * page + 1, entry->write);
}

static u64 sum_root(const root_t *r) { return sum_words((const u64 *)r, sizeof *r / 8 - 1); }

static u64 next_random(void) { /* splitmix64 */
  u64 z = root->random += GOLDEN;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

/* ---- printing ------------------------------------------------------------------------------------------------ */

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length > (int)sizeof line - 1) length = sizeof line - 1;
  while (write(1, line, length) < 0 && errno == EINTR) {}
}

static void die(const char *what) {
  say("victim cannot run: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* Stops all work for good and says why, every second and whenever someone asks. Prints numbers as they were found. */
__attribute__((noreturn)) static void torn(long page, const char *why, u64 expected, u64 found) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  char ignored[256];
  for (;;) {
    say("victim TORN step=%llu page=%ld why=%s expected=%016llx found=%016llx\n",
        (unsigned long long)step_in_register, page, why, (unsigned long long)expected, (unsigned long long)found);
    if (poll(&input, 1, 1000) > 0 && read(0, ignored, sizeof ignored) <= 0) input.fd = -1;
  }
}

/* ---- verification -------------------------------------------------------------------------------------------- */

static void verify_page(u64 page) {
  if (pages[page].word[0] != PAGE_MAGIC) torn((long)page, "magic", PAGE_MAGIC, pages[page].word[0]);
  if (pages[page].word[1] != page) torn((long)page, "index", page, pages[page].word[1]);
  u64 sum = sum_page(page);
  if (sum != table[page].sum) torn((long)page, "content", table[page].sum, sum);
}

static void verify_root(void) {
  if (step_in_register != root->step) torn(-1, "register", step_in_register, root->step);
  u64 sum = sum_root(root);
  if (root->magic != ROOT_MAGIC || sum != root->sum) torn(-1, "root", root->sum, sum);
  if (memcmp(root, mirror, sizeof *root) != 0) torn(-1, "mirror", root->step, mirror->step);
}

/* Every journal entry is of its place in history, and the table agrees with the last one of each page. */
static void verify_journal(void) {
  u64 kept = root->writes < JOURNAL_ENTRIES ? root->writes : JOURNAL_ENTRIES;
  u64 digest = 0;
  for (u64 write = root->writes - kept + 1; write <= root->writes; write++) {
    const journal_t *j = &journal[write % JOURNAL_ENTRIES];
    if (j->write != write || j->page >= root->pages) torn(-1, "journal", write, j->write);
    if (digest != 0 && fold(digest ^ j->sum, (write ^ j->page << 40) * 2 + 1) != j->digest)
      torn((long)j->page, "journal", digest, j->digest);
    digest = j->digest;
    const entry_t *entry = &table[j->page];
    if (entry->write < write) torn((long)j->page, "table", write, entry->write);
    if (entry->write == write && entry->sum != j->sum) torn((long)j->page, "table", j->sum, entry->sum);
  }
  if (digest != root->digest) torn(-1, "journal", root->digest, digest);
}

static void verify_all(void) {
  verify_root();
  u64 table_sum = 0;
  for (u64 page = 0; page < root->pages; page++) {
    verify_page(page);
    table_sum += hash_entry(page, &table[page]);
  }
  if (table_sum != root->table_sum) torn(-1, "table", root->table_sum, table_sum);
  verify_journal();
}

/* ---- updates ------------------------------------------------------------------------------------------------- */

static const char words8[64][9] = {
    "the page", " was on ", "its way ", "to the o", "ther hos", "t, line ", "by line,", " and not",
    "hing was", " lost.  ", "<a href=", "\"/index.", "html\">  ", "</a><br>", "GET /api", "/v1/item",
    " HTTP/1.", "1\r\nHost:", "{\"id\": 1", "0, \"name", "\": \"nobo", "dy\"},   ", "SELECT *", " FROM t ",
    "WHERE id", " = 42;  ", "INSERT I", "NTO log ", "VALUES (", "1, 2, 3)", "int main", "(void) {",
    "  return", " 0;\n}\n\n", "#include", " <stdio.", "h>\n     ", "for (i =", " 0; i < ", "n; i++) ",
    "2024-01-", "01T00:00", ":00Z INF", "O ready ", "WARN ret", "rying 3 ", "times...", "        ",
    "/usr/lib", "/x86_64-", "linux-gn", "u/libc.s", "o.6\0\0\0\0\0", "user=roo", "t uid=0 ", "gid=0   ",
    "lorem ip", "sum dolo", "r sit am", "et, cons", "ectetur ", "adipisci", "ng elit.", "\n\n      "};

/* Fills the content of a page with one of six kinds of data. */
static void fill(u64 *word) {
  u64 kind = next_random() % 8, base = next_random(), bits = 0;
  for (u64 i = HEADER_WORDS; i < PAGE_WORDS; i++) {
    if (i % 8 == HEADER_WORDS) bits = next_random();
    switch (kind) {
    case 0: case 1: case 2: /* text */
      memcpy(&word[i], words8[bits & 63], 8);
      bits >>= 6;
      break;
    case 3: /* counters */
      word[i] = (base & 0xffffff) + i;
      break;
    case 4: /* records: id, length, flags, time, then nothing */
      word[i] = i % 8 == 2 ? i : i % 8 == 3 ? bits & 0xff : i % 8 == 4 ? 1 : i % 8 == 5 ? base & 0xffffffff : 0;
      break;
    case 5: /* pointers into one heap */
      word[i] = 0x00007f0000000000ull | (base & 0xfffff) << 20 | (bits & 0xffff0);
      bits = bits >> 6 | bits << 58;
      break;
    case 6: /* nearly nothing */
      word[i] = i % 64 == 3 ? bits & 0xffff : 0;
      break;
    default: /* noise */
      bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
      word[i] = bits + base;
    }
  }
}

/* Records that a page now has this sum: table, history digest, journal. A stale table entry leaves its mark in
 * table_sum for good; a stale journal entry would vanish here, so it is looked at first. */
static void record(u64 page, u64 sum) {
  entry_t *entry = &table[page];
  u64 before = hash_entry(page, entry);
  u64 write = ++root->writes;
  u64 overwritten = write > JOURNAL_ENTRIES ? write - JOURNAL_ENTRIES : 0;
  journal_t *slot = &journal[write % JOURNAL_ENTRIES];
  if (slot->write != overwritten) torn(-1, "journal", overwritten, slot->write);
  entry->sum = sum;
  entry->write = write;
  root->table_sum += hash_entry(page, entry) - before;
  root->digest = fold(root->digest ^ sum, (write ^ page << 40) * 2 + 1);
  *slot = (journal_t){write, page, sum, root->digest};
}

static void write_word(u64 page) {
  u64 r = next_random();
  u64 i = HEADER_WORDS + (r >> 8) % (PAGE_WORDS - HEADER_WORDS);
  u64 old = pages[page].word[i];
  u64 new = r & 1 ? old + 1 : next_random() >> (r >> 1 & 31);
  if (new == old) new++;
  pages[page].word[i] = new;
  record(page, table[page].sum + hash_word(i, new) - hash_word(i, old));
}

static void write_page(u64 page) {
  verify_page(page);
  fill(pages[page].word);
  record(page, sum_page(page));
}

static void copy_page(u64 page, u64 from) {
  verify_page(page);
  verify_page(from);
  memcpy(&pages[page].word[HEADER_WORDS], &pages[from].word[HEADER_WORDS], (PAGE_WORDS - HEADER_WORDS) * 8);
  record(page, sum_page(page));
}

typedef enum { MIXED, WORDS, PAGES, COPIES, SCATTERED } pattern_t;

static void one_write(pattern_t pattern) {
  if (pattern == SCATTERED) {
    /* A stride coprime to the number of pages: that many writes in a row never meet the same page. */
    write_word(root->writes * scattered_stride % root->pages);
    return;
  }
  u64 r = next_random(), page = (r >> 16) % root->pages;
  unsigned percent = (r & 0xffff) % 100;
  if (pattern == MIXED && (r >> 60) < 12) {
    u64 window = root->pages / 8;
    page = (page % window + (root->writes >> 16) * (window / 16 + 1)) % root->pages;
  }
  if (pattern == PAGES || (pattern == MIXED && percent >= 94 && percent < 98)) write_page(page);
  else if (pattern == COPIES || (pattern == MIXED && percent >= 98)) copy_page(page, next_random() % root->pages);
  else write_word(page);
}

static void one_step(pattern_t pattern) {
  for (int i = 0; i < STEP_WRITES; i++) one_write(pattern);
  /* What the end of the step overwrites must still be what the end of the last one left. */
  if (mirror->step != step_in_register || sum_root(mirror) != mirror->sum)
    torn(-1, "mirror", step_in_register, mirror->step);
  if (root->sum != mirror->sum) torn(-1, "root", mirror->sum, root->sum);
  root->step++;
  root->sum = sum_root(root);
  *mirror = *root;
  step_in_register++;
}

/* ---- set-up -------------------------------------------------------------------------------------------------- */

static void *reserve(u64 bytes) {
  void *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) die("no memory for the data");
  return memory;
}

static u64 coprime_stride(u64 count) {
  for (u64 stride = (u64)(count * 0.618) | 1;; stride += 2) {
    u64 a = stride, b = count;
    while (b) { u64 t = a % b; a = b; b = t; }
    if (a == 1) return stride;
  }
}

static void build(u64 mib, u64 seed) {
  u64 count = mib * 256;
  pages = reserve(count * sizeof *pages);
  table = reserve(count * sizeof *table);
  journal = reserve(JOURNAL_ENTRIES * sizeof *journal);
  root = reserve(4096);
  mirror = reserve(4096);
  *root = (root_t){.magic = ROOT_MAGIC, .seed = seed, .pages = count, .random = seed * GOLDEN, .digest = seed};
  for (u64 page = 0; page < count; page++) {
    pages[page].word[0] = PAGE_MAGIC;
    pages[page].word[1] = page;
    fill(pages[page].word);
    table[page].sum = sum_page(page);
    root->table_sum += hash_entry(page, &table[page]);
  }
  root->sum = sum_root(root);
  *mirror = *root;
  step_in_register = 0;
  scattered_stride = coprime_stride(count);
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static u64 now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (u64)t.tv_sec * 1000000000ull + (u64)t.tv_nsec;
}

static void report(u64 verified) {
  say("victim step=%llu pages=%llu verify=%llu digest=%016llx\n", (unsigned long long)root->step,
      (unsigned long long)root->writes, (unsigned long long)verified, (unsigned long long)root->digest);
}

/* Sleeps until a moment or until input comes; true when the line `verify` was among it. */
static int wait_for_command(u64 until_ns) {
  static struct pollfd input = {.fd = 0, .events = POLLIN};
  static char line[64];
  static size_t length;
  char byte[64];
  int asked = 0;
  u64 now = now_ns();
  u64 left = until_ns > now ? until_ns - now : 0;
  struct timespec timeout = {(time_t)(left / 1000000000ull), (long)(left % 1000000000ull)};
  if (ppoll(&input, 1, &timeout, 0) <= 0) return 0;
  ssize_t got = read(0, byte, sizeof byte);
  if (got <= 0) input.fd = -1;
  for (ssize_t i = 0; i < got; i++) {
    if (byte[i] == '\n' || byte[i] == '\r') {
      asked |= length == 6 && memcmp(line, "verify", 6) == 0;
      length = 0;
    } else if (length < sizeof line) line[length++] = byte[i];
  }
  return asked;
}

typedef struct { u64 writes_per_s, report_ns, verify_ns; pattern_t pattern; } pace_t;

/* Does the writes that are due; returns when that is done or the tick is used up. */
static void work(const pace_t *pace, u64 *started_ns, u64 *base_writes) {
  u64 begin = now_ns(), now = begin;
  for (;;) {
    if (pace->writes_per_s) {
      u64 due = *base_writes + (u64)((u128)(now - *started_ns) * pace->writes_per_s / 1000000000ull);
      if (root->writes >= due) return;
      if (due - root->writes > pace->writes_per_s * (DEBT_NS / MS) / 1000) {
        *started_ns = now;
        *base_writes = root->writes;
        return;
      }
    }
    one_step(pace->pattern);
    now = now_ns();
    if (now - begin > TICK_NS) return;
  }
}

static void run(const pace_t *pace) {
  u64 started = now_ns(), base_writes = 0, verified = 0, cursor = 0;
  u64 tick = started, next_report = started, next_verify = started + pace->verify_ns;
  u64 pass_pages = root->pages * TICK_NS / PASS_NS + 1;
  for (;;) {
    work(pace, &started, &base_writes);
    verify_root();
    for (u64 i = 0; i < pass_pages; i++) verify_page(cursor++ % root->pages);
    u64 now = now_ns();
    if (now >= next_verify) {
      verify_all();
      verified++;
      u64 after = now_ns(), rest = 20 * (after - now);
      next_verify = after + (rest > pace->verify_ns ? rest : pace->verify_ns);
      now = after;
    }
    if (now >= next_report) {
      report(verified);
      next_report += pace->report_ns;
      if (next_report < now) next_report = now + pace->report_ns;
    }
    tick += TICK_NS;
    if (tick < now) tick = now;
    while (wait_for_command(pace->writes_per_s ? tick : 0)) {
      verify_all();
      verified++;
      say("victim verified step=%llu ok\n", (unsigned long long)root->step);
    }
  }
}

static u64 number(const char *text, const char *what) {
  char *end;
  errno = 0;
  u64 value = strtoull(text, &end, 10);
  if (errno || end == text || *end || *text == '-') {
    say("victim cannot run: %s is not a whole number: %s\n", what, text);
    exit(2);
  }
  return value;
}

int main(int count, char **arguments) {
  u64 mib = 32, seed = 1, rate = 1250, until = 0;
  pace_t pace = {.report_ns = 25 * MS, .verify_ns = 1500 * MS, .pattern = MIXED};
  u64 scattered = 0;
  for (int i = 1; i < count; i++) {
    char *key = arguments[i], *value = strchr(key, '=');
    if (!value) continue;
    *value++ = 0;
    if (!strcmp(key, "mib")) mib = number(value, key);
    else if (!strcmp(key, "seed")) seed = number(value, key);
    else if (!strcmp(key, "rate")) rate = number(value, key);
    else if (!strcmp(key, "report_ms")) pace.report_ns = number(value, key) * MS;
    else if (!strcmp(key, "verify_ms")) pace.verify_ns = number(value, key) * MS;
    else if (!strcmp(key, "until")) until = number(value, key);
    else if (strcmp(key, "pattern") != 0) return say("victim cannot run: unknown argument %s\n", key), 2;
    else if (!strcmp(value, "mixed")) pace.pattern = MIXED;
    else if (!strcmp(value, "words")) pace.pattern = WORDS;
    else if (!strcmp(value, "pages")) pace.pattern = PAGES;
    else if (!strcmp(value, "copies")) pace.pattern = COPIES;
    else if (!strncmp(value, "scattered:", 10)) pace.pattern = SCATTERED, scattered = number(value + 10, key);
    else return say("victim cannot run: unknown pattern %s\n", value), 2;
  }
  if (mib < 1 || mib > 65536) return say("victim cannot run: mib must be 1 to 65536\n"), 2;
  if (pace.pattern == SCATTERED && (scattered < 1 || scattered > mib * 256))
    return say("victim cannot run: scattered:N needs 1 <= N <= %llu\n", (unsigned long long)mib * 256), 2;
  pace.writes_per_s = pace.pattern == SCATTERED ? scattered * 40 : rate * STEP_WRITES;
  build(mib, seed);
  if (until) {
    while (root->step < until) one_step(pace.pattern);
    verify_all();
    report(1);
    return 0;
  }
  mlockall(MCL_CURRENT | MCL_FUTURE); /* refused on a host for ordinary users: no harm, the pages are populated */
  run(&pace);
}
