// Matrix products on the processor's vector units, in three number formats: see `kernel.cpp` for how
// a matrix lies in memory.
//
// What the processor has is told by `machine/native.py`, in its table of builds: UMT_LANES, and which
// instructions may stand for plain C++ (UMT_VNNI, UMT_BF16, UMT_MADD, UMT_SIGN, UMT_DOTPROD). Nothing
// here asks what the compiler happens to aim at.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(UMT_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

// ---------------------------------------------------------------------------------- vectors

constexpr int LANES = UMT_LANES;  // of 32 bits; the compiler cuts what is too wide
constexpr int PANEL = 4 * LANES;

// Sums in registers at once, when several streams share a weight: so many streams, and vectors of
// rows. There are 32 registers, but 16 where vectors have 8 lanes.
constexpr int COLUMNS = LANES == 4 ? 4 : 6, STRIP = LANES == 8 ? 2 : 4;

using Word = uint32_t;  // one float32, two bfloat16 or four int8: the first input in the low bits
typedef float Floats __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), may_alias));
typedef Word Words __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(LANES), may_alias));

// All own memory is aligned to 64 bytes, and rows are padded to whole panels.
inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline void store(float* p, Floats v) { *reinterpret_cast<Floats*>(p) = v; }
inline Floats same(float value) { return Floats{} + value; }

#if defined(__AVX512F__) && UMT_LANES == 16  // what compilers do not find by themselves
inline Floats largest(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
inline Floats smallest(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
inline float largest_of(Floats v) { return _mm512_reduce_max_ps((__m512)v); }
inline Bytes low_bytes(Words v) { return (Bytes)_mm512_cvtepi32_epi8((__m512i)v); }
#else
inline Floats largest(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smallest(Floats a, Floats b) { return a < b ? a : b; }
inline float largest_of(Floats v) {
  float most[LANES];
  std::memcpy(most, &v, sizeof most);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) most[i] = std::max(most[i], most[i + half]);
  return most[0];
}
inline Bytes low_bytes(Words v) {  // by way of 16 bits: there are instructions for each step
  return __builtin_convertvector(__builtin_convertvector(v, Halves), Bytes);
}
#endif

constexpr float ROUND = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, in the low bits

// e^x within 2 units in the last place, x clipped to [-80, 40]: x = n ln 2 + r, Taylor series in r.
inline Floats exponential(Floats x) {
  x = largest(smallest(x, same(40.f)), same(-80.f));
  Floats shifted = x * 1.44269504f + ROUND;
  Floats n = shifted - ROUND;
  Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two pieces
  Floats sum = r * (1 / 5040.f) + 1 / 720.f;
  sum = sum * r + 1 / 120.f;
  sum = sum * r + 1 / 24.f;
  sum = sum * r + 1 / 6.f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.f;
  sum = sum * r + 1.f;
  return (Floats)((Words)sum + ((Words)shifted << 23));  // times 2^n
}

// sigmoid(a) tanh(b), with one division. The clip at 40 keeps the product finite.
inline Floats gate(Floats a, Floats b) {
  const Floats p = exponential(-a), q = exponential(-2.f * b);
  return (1.f - q) / ((1.f + p) * (1.f + q));
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Owned = std::unique_ptr<T[], Free>;

// Zeroed memory, aligned for the vectors.
template <class T>
Owned<T> allocate(size_t count) {
  const size_t bytes = (count * sizeof(T) + 127) / 64 * 64;
  void* memory = std::aligned_alloc(64, bytes);
  if (!memory) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  return Owned<T>(static_cast<T*>(memory));
}

// ---------------------------------------------------------------------------- number formats
//
// A format says how a row of weights and a vector of inputs are written (`pack` and `put`; `steps`
// words hold the values), and how a word of each adds to a sum. TAIL words follow the inputs of a
// vector, and TAIL_ROWS rows of a panel follow its weights.

struct Float32 {
  static constexpr int PER_WORD = 1, TAIL = 0, TAIL_ROWS = 0;
  using Sum = Floats;
  static void pack(Word* to, int steps, const float* row, int) {
    for (int i = 0; i < steps; ++i) std::memcpy(to + i * PANEL, row + i, 4);
  }
  static void put(Word* to, int, const float* values, int count) {
    for (int c = 0; c < count; c += LANES) store(reinterpret_cast<float*>(to) + c, load(values + c));
  }
  static Sum begin(Floats start, const Word*) { return start; }
  static Sum add(Sum sum, Words w, Word x) { return sum + (Floats)w * (Floats)(Words{} + x); }
  static Floats end(Sum sum, Floats, const Word*, const Word*) { return sum; }
};

// Weights and the inputs of every product rounded to bfloat16, sums and residuals in float32.
struct Bfloat16 {
  static constexpr int PER_WORD = 2, TAIL = 0, TAIL_ROWS = 0;
  using Sum = Floats;
  template <class T>
  static T round(T bits) { return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16; }
  static void pack(Word* to, int steps, const float* row, int count) {
    for (int i = 0; i < steps; ++i) {
      Word pair[2] = {0, 0};
      std::memcpy(pair, row + 2 * i, 4 * std::min(2, count - 2 * i));
      to[i * PANEL] = round(pair[0]) | round(pair[1]) << 16;
    }
  }
  static void put(Word* to, int, const float* values, int count) {
    for (int c = 0; c < count; c += LANES) {
      const Halves halves = __builtin_convertvector(round((Words)load(values + c)), Halves);
      std::memcpy(to + c / 2, &halves, sizeof halves);
    }
  }
  static Sum begin(Floats start, const Word*) { return start; }
  static Sum add(Sum sum, Words w, Word x) {
#if defined(UMT_BF16)
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)(Words{} + x));
#else
    sum += (Floats)(w << 16) * (Floats)(Words{} + (x << 16));  // a bfloat16 is half a float32
    return sum + (Floats)(w & 0xffff0000u) * (Floats)(Words{} + (x & 0xffff0000u));
#endif
  }
  static Floats end(Sum sum, Floats, const Word*, const Word*) { return sum; }
};

// Sums of four products of bytes each. All of these are exact, so every processor has the same sums.
// VNNI multiplies unsigned by signed bytes: there inputs are stored with 128 added, and sums start
// at what that adds too much.
#if defined(UMT_VNNI)
inline Ints dot(Ints sum, Words w, Words x) {
#if defined(UMT_EMULATED)
  return UMT_EMULATED(sum, x, w);  // a test's own, where no such processor is at hand
#elif UMT_LANES == 16
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#else
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#endif
}
#elif defined(UMT_SIGN)
// |w| times x with the sign of w: two products of at most 127 * 127 fit into 16 bits.
inline Ints dot(Ints sum, Words w, Words x) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w),
                                             _mm256_sign_epi8((__m256i)x, (__m256i)w));
  return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif defined(UMT_DOTPROD)
inline Ints dot(Ints sum, Words w, Words x) {
  return (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}
#elif defined(UMT_MADD)
// Even and odd bytes widened to 16 bits, whose products are added in pairs.
typedef int16_t Shorts __attribute__((vector_size(4 * LANES), may_alias));
inline Ints pairs(Shorts w, Shorts x) {
#if UMT_LANES == 16
  return (Ints)_mm512_madd_epi16((__m512i)w, (__m512i)x);
#else
  return (Ints)_mm_madd_epi16((__m128i)w, (__m128i)x);
#endif
}
inline Ints dot(Ints sum, Words w, Words x) {
  sum += pairs((Shorts)w << 8 >> 8, (Shorts)x << 8 >> 8);
  return sum + pairs((Shorts)w >> 8, (Shorts)x >> 8);
}
#else
inline Ints dot(Ints sum, Words w, Words x) {
  for (int shift = 0; shift < 32; shift += 8)
    sum += ((Ints)(w << shift) >> 24) * ((Ints)(x << shift) >> 24);
  return sum;
}
#endif

// Weights with one scale per row, and the inputs of a product with one in all, from -127 to 127.
struct Int8 {
#if defined(UMT_VNNI)
  static constexpr int TAIL_ROWS = 2;  // the rows' scales, and where their sums begin
  static constexpr Word OFFSET = 0x80808080;
#else
  static constexpr int TAIL_ROWS = 1;
  static constexpr Word OFFSET = 0;
#endif
  static constexpr int PER_WORD = 4, TAIL = 1;
  using Sum = Ints;
  static void pack(Word* to, int steps, const float* row, int count) {
    float most = 0;
    for (int c = 0; c < count; ++c) most = std::max(most, std::abs(row[c]));
    const float up = most > 0 ? 127 / most : 0, scale = most / 127;
    int32_t sum = 0;
    for (int c = 0; c < count; ++c) {
      const float shifted = row[c] * up + ROUND;
      Word bits;
      std::memcpy(&bits, &shifted, 4);
      to[c / 4 * PANEL] |= (bits & 0xff) << c % 4 * 8;
      sum += int8_t(bits & 0xff);
    }
    std::memcpy(to + steps * PANEL, &scale, 4);
    if (TAIL_ROWS > 1) to[(steps + 1) * PANEL] = Word(-128 * sum);
  }
  static void put(Word* to, int steps, const float* values, int count) {
    Floats most{};
    for (int c = 0; c < count; c += LANES) most = largest(most, largest(load(values + c), -load(values + c)));
    const float top = largest_of(most), up = top > 0 ? 127 / top : 0, scale = top / 127;
    for (int c = 0; c < count; c += LANES) {
      const Words bits = (Words)(load(values + c) * up + ROUND) ^ (OFFSET & 0xff);
      const Bytes bytes = low_bytes(bits);
      std::memcpy(to + c / 4, &bytes, sizeof bytes);
    }
    std::memcpy(to + steps, &scale, 4);  // over the padding
  }
  // `tail`: what follows the weights of these rows.
  static Sum begin(Floats, const Word* tail) {
    return TAIL_ROWS > 1 ? *reinterpret_cast<const Ints*>(tail + PANEL) : Ints{};
  }
  static Sum add(Sum sum, Words w, Word x) { return dot(sum, w, Words{} + x); }
  static Floats end(Sum sum, Floats start, const Word* tail, const Word* scale) {
    const Floats rows = load(reinterpret_cast<const float*>(tail));
    return start + __builtin_convertvector(sum, Floats) * (rows * *reinterpret_cast<const float*>(scale));
  }
};

// ----------------------------------------------------------------------------------- products

inline int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

template <class Number>
int words(int values) {
  return (values + Number::PER_WORD - 1) / Number::PER_WORD;
}

// Words of an input vector in memory.
template <class Number>
int length(int values) {
  return words<Number>(values) + Number::TAIL;
}

struct Matrix {
  const Word* panels;
  int steps;
};

// Vectors at constant distance from each other, one per column.
template <class T>
struct Columns {
  T* first;
  ptrdiff_t step;
  T* operator[](int n) const { return first + n * step; }
};

// Some rows of a product, as many as a panel has at most: y[n] = start[n] + W x[n].
struct Panel {
  const Word* weights;
  Columns<const float> start;
  Columns<float> y;
  Panel from(int row) const {
    return {weights + row, {start.first + row, start.step}, {y.first + row, y.step}};
  }
};

// N columns and V vectors of rows (V > 4: of two panels).
template <class Number, int N, int V>
inline void tile(const Panel* panels, int steps, Columns<const Word> x) {
  const auto at = [&](int i, int v) { return panels[v / 4].weights + i * PANEL + v % 4 * LANES; };
  const auto from = [&](int n, int v) { return load(panels[v / 4].start[n] + v % 4 * LANES); };
  typename Number::Sum sum[N][V];
  for (int n = 0; n < N; ++n)
    for (int v = 0; v < V; ++v) sum[n][v] = Number::begin(from(n, v), at(steps, v));
  for (int i = 0; i < steps; ++i) {
    Words w[V];
    for (int v = 0; v < V; ++v) w[v] = *reinterpret_cast<const Words*>(at(i, v));
    for (int n = 0; n < N; ++n) {
      const Word value = x[n][i];
      for (int v = 0; v < V; ++v) sum[n][v] = Number::add(sum[n][v], w[v], value);
    }
  }
  for (int n = 0; n < N; ++n)
    for (int v = 0; v < V; ++v)
      store(panels[v / 4].y[n] + v % 4 * LANES,
            Number::end(sum[n][v], from(n, v), at(steps, v), x[n] + steps));
}

template <class Number, int N>
void tiles(int n, const Panel& panel, int steps, Columns<const Word> x) {
  if (n == N) return tile<Number, N, STRIP>(&panel, steps, x);
  if constexpr (N > 1) tiles<Number, N - 1>(n, panel, steps, x);
}

// A product's rows [first, last), in panels; without `start` from zero. (Which is read like any
// other: a branch would let the compiler contract one tile's last sum and not another's.)
struct Rows {
  Matrix matrix;
  int first, last;
  Columns<const float> start;
  Columns<float> y;
  int count() const { return last - first; }
  template <class Number>
  Panel panel(int i) const {
    alignas(64) static const float zeros[PANEL] = {};
    const ptrdiff_t size = ptrdiff_t(matrix.steps + Number::TAIL_ROWS) * PANEL, row = i * PANEL;
    return {matrix.panels + (first + i) * size,
            {start.first ? start.first + row : zeros, start.first ? start.step : 0},
            {y.first + row, y.step}};
  }
};

// One product, or two of the same inputs.
template <class Number>
void product(int columns, Columns<const Word> x, const Rows& one, const Rows& two = {}) {
  const int steps = one.matrix.steps, count = one.count() + two.count();
  const int rounds = (columns + COLUMNS - 1) / COLUMNS;
  const auto panel = [&](int i) {
    return i < one.count() ? one.panel<Number>(i) : two.panel<Number>(i - one.count());
  };
  int i = 0;
  for (; columns == 1 && i + 1 < count; i += 2) {  // one column alone: two panels keep the pipes full
    const Panel pair[] = {panel(i), panel(i + 1)};
    tile<Number, 1, 8>(pair, steps, x);
  }
  for (; i < count; ++i)
    for (int strip = 0; strip < PANEL; strip += STRIP * LANES)
      for (int round = 0; round < rounds; ++round) {
        const int n = columns * round / rounds, until = columns * (round + 1) / rounds;
        Panel some = panel(i).from(strip);
        some.start.first = some.start[n], some.y.first = some.y[n];
        tiles<Number, COLUMNS>(until - n, some, steps, {x[n], x.step});
      }
}

}  // namespace
