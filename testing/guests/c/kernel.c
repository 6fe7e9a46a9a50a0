// SHA-256 over and over: how fast a guest's integer code is. The same source is a function and, compiled by the machine's
// own compiler, the program that it is compared with.
//
//   function:  body = rounds (u32, little-endian) ─▶ digest of 64 bytes, that many rounds deep
//   program:   kernel ROUNDS TIMES ─▶ digest and the nanoseconds of each time, one a line
//
// Built by tests/functions/checked_in.rs, and by `cargo xtask bench functions`.

#include <stddef.h>
#include <stdint.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void block(uint32_t state[8], const uint32_t input[16]) {
    uint32_t w[64];
    for (int t = 0; t < 16; t++) w[t] = input[t];
    for (int t = 16; t < 64; t++) {
        const uint32_t x = w[t - 15], y = w[t - 2];
        w[t] = w[t - 16] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + w[t - 7] + (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
        const uint32_t one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + K[t] + w[t];
        const uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/// The digest of the 64 bytes "bield" and zeroes, then of that digest twice after itself, and so on.
static void digest(uint32_t rounds, uint8_t into[32]) {
    uint32_t message[16] = {0x6269656c, 0x64000000}, state[8] = {0};
    // The block that ends a message of 64 bytes.
    static const uint32_t end[16] = {0x80000000, [15] = 512};
    for (uint32_t round = 0; round < rounds; round++) {
        static const uint32_t begin[8] = {
            0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
        for (int at = 0; at < 8; at++) state[at] = begin[at];
        block(state, message);
        block(state, end);
        for (int at = 0; at < 8; at++) message[at] = message[at + 8] = state[at];
    }
    for (int at = 0; at < 32; at++) into[at] = (uint8_t)(state[at / 4] >> (24 - 8 * (at % 4)));
}

#ifdef __wasm__

#include "bield.h"

bield_answer handle(bield_request request) {
    if (request.body.length != 4) return bield_refused(BIELD_BAD_REQUEST, bield_text("rounds, in four bytes"));
    uint32_t rounds = 0;
    for (int at = 3; at >= 0; at--) rounds = rounds << 8 | request.body.at[at];
    uint8_t *answer = bield_room(32);
    digest(rounds, answer);
    return bield_answered("application/octet-stream", (bield_bytes){answer, 32});
}

#else

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int count, char **arguments) {
    if (count != 3) return 2;
    const uint32_t rounds = (uint32_t)strtoul(arguments[1], NULL, 10);
    for (long times = strtol(arguments[2], NULL, 10); times > 0; times--) {
        struct timespec from, to;
        uint8_t made[32];
        clock_gettime(CLOCK_MONOTONIC, &from);
        digest(rounds, made);
        clock_gettime(CLOCK_MONOTONIC, &to);
        for (int at = 0; at < 32; at++) printf("%02x", made[at]);
        printf(" %lld\n", (long long)(to.tv_sec - from.tv_sec) * 1000000000 + (to.tv_nsec - from.tv_nsec));
    }
    return 0;
}

#endif
