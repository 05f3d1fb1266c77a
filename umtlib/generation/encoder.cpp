// The paper's encoder, between its first layer and the average over a latent frame, on the
// processor's vector units: see `encoder.py` for the network, `kernel.cpp` and `products.h` for how
// weights lie in memory.
//
// Time runs along the rows of every array, so a product's columns are neighbouring steps: as many
// as the registers hold share each weight that is read. A layer goes over the time once. It makes,
// block by block, the dilated convolution, the 1x1 and the residual, and already writes the result
// as the next layer's input, with a margin of zeros as wide as that one looks.

#include <algorithm>

#include "products.h"
#include "threads.h"

namespace {

constexpr int BLOCK = 48, TAPS = 3;  // steps at a time: a block's hidden rows stay in the cache

// The encoder's weights as `encoding.py` hands them over: row-major float32.
struct Stack {
  const float* front;       // (3, C): taps of the first layer
  const float* front_bias;  // (C)
  const float* taps;        // (layers, 3, C, C)
  const float* taps_bias;   // (layers, C)
  const float* out;         // (layers, C, C)
  const float* out_bias;    // (layers, C)
  const int32_t* dilations; // (layers)
  int32_t layers, channels, first_relu;
};

template <class Number>
class Encoder {
 public:
  Encoder(const Stack& stack, const uint8_t* codes, int64_t steps, int threads)
      : s(stack), codes(codes), T(steps), threads(threads), C(s.channels), width(round_up(C, PANEL)),
        row(length<Number>(width)), margin(*std::max_element(s.dilations, s.dilations + s.layers)) {
    const int64_t input = (T + 2 * margin) * row;
    memory = allocate<Word>(T * width + 2 * input);  // at once: so large a block is given back
    x = reinterpret_cast<float*>(memory.get());
    inputs[0] = memory.get() + T * width;
    inputs[1] = inputs[0] + input;
  }

  // means (T / pool, C): of every channel over each latent frame.
  void run(int pool, float* means) {
    share(T, threads, [&](int64_t first, int64_t last) { begin(first, last); });
    for (int l = 0; l < s.layers; ++l) {
      const Owned<Word> memory = pack(l);
      share(T, threads, [&](int64_t first, int64_t last) { layer(l, memory.get(), first, last); });
    }
    for (int64_t t = 0; t < T; ++t)
      for (int c = 0; c < C; ++c) means[t / pool * C + c] += x[t * width + c];
    for (int64_t i = 0; i < T / pool * C; ++i) means[i] /= pool;
  }

 private:
  const Stack& s;
  const uint8_t* codes;
  const int64_t T;
  const int threads, C, width, row;  // width: channels, padded; row: words of an input
  const int64_t margin;
  Owned<Word> memory;
  float* x;         // (T, width): the residual
  Word* inputs[2];  // (margin + T + margin, row): a layer's input and the next one's

  int steps() const { return words<Number>(C); }
  ptrdiff_t matrix_words() const { return ptrdiff_t(width) * (steps() + Number::TAIL_ROWS); }

  // A layer's taps and its 1x1, one behind the other, then their biases.
  Owned<Word> pack(int l) const {
    Owned<Word> memory = allocate<Word>((TAPS + 1) * matrix_words() + 2 * width);
    for (int m = 0; m <= TAPS; ++m) {
      const int64_t size = int64_t(C) * C;
      const float* from = m < TAPS ? s.taps + (int64_t(l) * TAPS + m) * size : s.out + l * size;
      for (int r = 0; r < C; ++r)
        Number::pack(&memory[m * matrix_words() + r / PANEL * (steps() + Number::TAIL_ROWS) * PANEL + r % PANEL],
                     steps(), from + int64_t(r) * C, C);
    }
    Word* biases = &memory[(TAPS + 1) * matrix_words()];
    std::memcpy(biases, s.taps_bias + int64_t(l) * C, 4 * C);
    std::memcpy(biases + width, s.out_bias + int64_t(l) * C, 4 * C);
    return memory;
  }

  // The residual of step t becomes the input of layer l.
  void put(int l, int64_t t, float* scratch) {
    const float* values = &x[t * width];
    if (s.first_relu) values = rectify(values, scratch);
    Number::put(&inputs[l % 2][(margin + t) * row], steps(), values, width);
  }

  const float* rectify(const float* from, float* to) const {
    for (int c = 0; c < width; c += LANES) store(to + c, largest(load(from + c), Floats{}));
    return to;
  }

  // The first layer: a convolution on the codes, scaled to [-0.5, 0.5].
  void begin(int64_t first, int64_t last) {
    const Owned<float> scratch = allocate<float>(width);
    for (int64_t t = first; t < last; ++t) {
      float* to = &x[t * width];
      std::memcpy(to, s.front_bias, 4 * C);
      for (int k = 0; k < TAPS; ++k) {
        const int64_t from = t + k - 1;
        const float value = from < 0 || from >= T ? 0 : codes[from] / 255.f - 0.5f;
        for (int c = 0; c < C; ++c) to[c] += s.front[k * C + c] * value;
      }
      put(0, t, scratch.get());
    }
  }

  void layer(int l, const Word* memory, int64_t first, int64_t last) {
    const int panels = width / PANEL, d = s.dilations[l];
    const float* biases = reinterpret_cast<const float*>(memory + (TAPS + 1) * matrix_words());
    const Owned<float> hidden = allocate<float>(BLOCK * width), scratch = allocate<float>(width);
    const Owned<Word> gated = allocate<Word>(BLOCK * row);
    const Columns<float> y{hidden.get(), width};
    for (int64_t t = first; t < last; t += BLOCK) {
      const int n = std::min<int64_t>(BLOCK, last - t);
      for (int k = 0; k < TAPS; ++k) {
        const Word* from = &inputs[l % 2][(margin + t + (k - 1) * d) * row];
        const Columns<const float> start{k ? y.first : biases, k ? y.step : 0};
        product<Number>(n, {from, row}, {{memory + k * matrix_words(), steps()}, 0, panels, start, y});
      }
      for (int i = 0; i < n; ++i)
        Number::put(&gated[i * row], steps(), rectify(y[i], y[i]), width);
      const Columns<float> residual{&x[t * width], width};
      product<Number>(n, {gated.get(), row},
                      {{memory + TAPS * matrix_words(), steps()}, 0, panels,
                       {residual.first, residual.step}, residual});
      for (int i = 0; i < n; ++i) {
        for (int c = 0; c < width; c += LANES)
          store(residual[i] + c, load(residual[i] + c) + load(biases + width + c));
        if (l + 1 < s.layers) put(l + 1, t + i, scratch.get());
      }
    }
  }
};

}  // namespace

extern "C" {

// Formats: 0 is float32, 1 bfloat16, 2 int8. `means` holds zeros. Returns 1 if memory ran out.
int umt_encode(const Stack* stack, const uint8_t* codes, int64_t steps, int pool, int threads,
               int format, float* means) try {
  if (format == 2) Encoder<Int8>(*stack, codes, steps, threads).run(pool, means);
  if (format == 1) Encoder<Bfloat16>(*stack, codes, steps, threads).run(pool, means);
  if (format == 0) Encoder<Float32>(*stack, codes, steps, threads).run(pool, means);
  return 0;
} catch (...) {
  return 1;
}
}
