// umtlib/generation/kernel.cu as plain C++: a block is a function call, a phase is a loop over the
// block's threads. `umt_order` chooses in which order: a thread that relies on what another one does
// in the same phase then finds it done or not done, and the numbers come out wrong.
//
// C's headers only: this file is compiled some forty times, and C++'s take longer than the kernel.

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct Order {
  int threads[THREADS];
  bool shuffled;
  unsigned dice = 1;

  const int* begin() {
    for (int i = THREADS - 1; shuffled && i > 0; --i) {
      dice = dice * 1664525 + 1013904223;
      const int other = (dice >> 8) % (i + 1), thread = threads[i];
      threads[i] = threads[other];
      threads[other] = thread;
    }
    return threads;
  }
  const int* end() const { return threads + THREADS; }
};

static thread_local int block;
static thread_local Order order;

#define DEVICE inline
#define SHARED  // on the stack, where `soil` was
#define ENTRY static void
#define BLOCK block
#define UNROLLED
#define UNROLLED_NOT
#define PHASE for (const int thread : order)
#include SOURCE

// A GPU's shared memory begins with anything.
__attribute__((noinline)) static void soil() {
  volatile float stack[1 << 15];
  for (volatile float& value : stack) value = -1e30f;
}

// Forwards, backwards, or shuffled anew in every phase.
extern "C" void umt_order(int kind) {
  for (int i = 0; i < THREADS; ++i) order.threads[i] = kind == 1 ? THREADS - 1 - i : i;
  order.shuffled = kind == 2;
}

extern "C" void umt_launch(const Call* call, int blocks) {
  for (block = 0; block < blocks; ++block) {
    soil();
    umt_generate(*call);
  }
}

static void read_in(void* to, size_t size) {
  if (fread(to, 1, size, stdin) != size) exit(2);
}

// A program for the sanitizers, which know where memory begins and ends if they allocate it. Input:
// the number of blocks, a call, and for each of its pointers the bytes there, after their number.
int main() {
  int blocks;
  Call call;
  read_in(&blocks, sizeof blocks);
  read_in(&call, sizeof call);
  for (size_t i = 0; i < offsetof(Call, streams) / sizeof(void*); ++i) {
    size_t size;
    read_in(&size, sizeof size);
    void* const memory = malloc(size);
    read_in(memory, size);
    reinterpret_cast<void**>(&call)[i] = memory;
  }
  umt_order(0);
  umt_launch(&call, blocks);
  puts("clean");
}
