/*
 * The bare guest: a program without an operating system, which runs where no Linux boots, as under the KVM of machines without nested
 * virtualisation. Each processor rewrites pages of its own as fast as it can, in 8 places each, and looks whether those it finds
 * are what it wrote last. A page of another moment than the rest is torn: it is said and counted for ever.
 *
 * On the serial console, a line for each processor from time to time:
 *     bare: cpu N whole M torn T      all its pages were looked at M times, T were not what they should be
 */
#include <stdint.h>

enum {
    COM1 = 0x3f8,
    PAGE_WORDS = 512,
    PLACES = 8,
    PAGES = 2048, /* of each processor: 8 MiB */
    BURST = 2000, /* pages written, then looked at, in one round */
    ROUNDS = 10,  /* between two looks at all pages */
};

static const uintptr_t first_page = 16u << 20;

static uint32_t written[CPUS_MAX][PAGES]; /* how often each page was */

static volatile uint8_t printing;

static void put_byte(char byte)
{
    __asm__ volatile("outb %0, %1" ::"a"((uint8_t)byte), "Nd"((uint16_t)COM1));
}

static void put_text(const char *text)
{
    while (*text)
        put_byte(*text++);
}

static void put_number(uint64_t value)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        put_byte(digits[--count]);
}

/* xorshift64 (Marsaglia 2003). */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* The finalizer of MurmurHash3, by which each place of each writing has a value of its own. */
static uint64_t mix(uint64_t value)
{
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53ull;
    return value ^ (value >> 33);
}

static volatile uint64_t *place(uint32_t cpu, uint32_t page, uint32_t number)
{
    volatile uint64_t *words = (volatile uint64_t *)(first_page + ((uintptr_t)cpu * PAGES + page) * 4096);
    return &words[(number * 61 + page) % PAGE_WORDS];
}

static uint64_t value_of(uint32_t cpu, uint32_t page, uint32_t number)
{
    return mix(((uint64_t)page << 32 | written[cpu][page]) + ((uint64_t)cpu << 48) + number);
}

static void write_page(uint32_t cpu, uint32_t page)
{
    written[cpu][page]++;
    for (uint32_t n = 0; n < PLACES; n++)
        *place(cpu, page, n) = value_of(cpu, page, n);
}

static int is_whole(uint32_t cpu, uint32_t page)
{
    if (!written[cpu][page])
        return 1;
    for (uint32_t n = 0; n < PLACES; n++)
        if (*place(cpu, page, n) != value_of(cpu, page, n))
            return 0;
    return 1;
}

static void say(uint32_t cpu, uint64_t whole, uint64_t torn)
{
    while (__atomic_exchange_n(&printing, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
    put_text("bare: cpu ");
    put_number(cpu);
    put_text(" whole ");
    put_number(whole);
    put_text(" torn ");
    put_number(torn);
    put_text("\n");
    __atomic_store_n(&printing, 0, __ATOMIC_RELEASE);
}

void check(uint32_t cpu)
{
    uint64_t state = 88172645463325252ull + cpu, torn = 0;
    for (uint64_t whole = 0;; whole++) {
        say(cpu, whole, torn);
        for (int round = 0; round < ROUNDS; round++) {
            for (int n = 0; n < BURST; n++)
                write_page(cpu, (uint32_t)(next_random(&state) >> 20) % PAGES);
            for (int n = 0; n < BURST; n++)
                torn += !is_whole(cpu, (uint32_t)(next_random(&state) >> 20) % PAGES);
        }
        for (uint32_t page = 0; page < PAGES; page++)
            torn += !is_whole(cpu, page);
    }
}
