// The decoder, one sample after another, on the processor's vector units.
//
// Read `reference.py` first: it is the same loop in PyTorch. What follows makes it fast by reading
// every weight once per sample, in order, and by never leaving this file within a sample.
//
// Weights. A product y = W x is cut into panels of PANEL rows. A panel lies in memory as it is read:
//
//     for each step i over the inputs:   PANEL words, one per row
//
// A word has 32 bits: one float, two bfloat16 or four int8, and so as many inputs per step. PANEL
// sums stay in registers while the panel streams by; x[i] is broadcast to all lanes. Several streams
// (columns) share each loaded weight. A column's sums are always taken in the same order, so a stream
// does not depend on its company. `products.h` has all this.
//
// int8. The inputs of a product get one scale per stream and product, by their largest: the layer's
// input, each half of the gated channels, the head's input, each half of its hidden layer. The scale
// lies behind the vector's last word, in the rings too.
//
// Parts. The gated channels are cut into two halves, and so are the channels of the head's hidden
// layer. Whoever owns a part computes its rows of the dilated convolution, its gates, and then its
// *columns* of the residual and skip products. So two threads can share one stream and meet only
// once per layer, to add their two halves of the residual; the skip sums wait for the end. One
// thread alone owns both parts and adds the same halves: the same numbers, to the last bit.
//
// Time. Layer l needs W_prev x[t - d] + W_cur x[t]. The first product is known d samples early, so
// for few streams it is taken for up to 8 samples at once: one eighth of the weight traffic. The past
// x of a layer lie in a ring of d rows; slot t mod d holds x[t - d] until x[t] replaces it.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "products.h"
#include "threads.h"

namespace {

using Clock = std::chrono::steady_clock;
inline float seconds_since(Clock::time_point begin) {
  return std::chrono::duration<float>(Clock::now() - begin).count();
}

// ------------------------------------------------------------------------- the packed decoder

constexpr int CODES = 256, PARTS = 2, AHEAD = 8;
constexpr int PATIENCE = 2000, LOSS = 10000;  // spins in a wait; microseconds before a team quits
// In front of a stream's state: its position, two timings, a count, and from HEADER its last codes.
constexpr int HEADER = 16;

// The decoder as `weights.py` hands it over: row-major float32 matrices (outputs, inputs).
struct Source {
  const float* table;           // (inputs, 257, C + S): row 0 before the first sample, row 1 + code
  const float* condition;       // (layers * 2C + S, latent), the head's rows last
  const float* condition_bias;  // (layers * 2C + S)
  const float* previous;        // (layers, 2C, C): gates first, then values
  const float* current;         // (layers, 2C, C)
  const float* out;             // (layers, C + S, C): residual first, then skip
  const float* residual_bias;   // (layers, C)
  const float* head;            // (S, S)
  const float* logits;          // (256, S)
  const float* logits_bias;     // (256)
  const int32_t* dilations;     // (layers)
  const double* amplitudes;     // (256): of the codes
  const double* thresholds;     // (255): between neighbouring codes
  int32_t kernel, order;        // previous samples; those of the linear prediction, 0: there is none
  int32_t layers, channels, skip, latent;
};

// A call's arguments; T = frames * pool.
struct Call {
  Word* states;           // (streams, state_words); zeros before the first sample
  const float* latent;    // (streams, frames, latent)
  const double* predictors;  // (streams, frames, order), oldest sample first
  const float* uniforms;  // (streams, T), in [0, 1)
  const uint8_t* forced;  // null, or (streams, T): codes that replace the chosen ones in the past
  uint8_t* codes;         // (streams, T), written
  float* logits;          // null, or (streams, T, 256), written
  int32_t streams, frames, pool, threads;
  float temperature;
};

// Sizes of both parts together are in units of a part times PARTS. "Padded": to vectors or panels.
struct Sizes {
  int kernel, order, layers, channels, skip, latent;
  int inputs;    // codes that are looked up: `kernel` previous samples, and the prediction if any
  int gates;     // gated channels of a part, padded
  int hidden;    // rows of a part's dilated convolution, padded: gates, then values
  int head;      // rows of a part's hidden layer in the head, padded
  int residual;  // channels, padded
  int skips;     // skip channels, padded
};

struct Layer {
  Matrix condition, previous, current;    // rows of both parts, one part after the other
  Matrix residual[PARTS], skip[PARTS];    // the columns of one part
  const float *condition_bias, *bias;     // bias of the residual
  int dilation;
  size_t ring;  // where this layer's ring begins in a stream's state, in words
};

// Cuts matrices into panels, one behind the other, in the order in which a sample needs them. The
// first of two runs only counts, so that the second one has all its memory in one piece.
struct Packer {
  Word* memory = nullptr;
  size_t used = 0;

  // Rows of `source`, by number (-1: zeros), and columns [first, last).
  template <class Number>
  Matrix matrix(const float* source, int pitch, const std::vector<int>& rows, int first, int last) {
    const int steps = words<Number>(last - first), panel = (steps + Number::TAIL_ROWS) * PANEL;
    Word* to = memory + used;
    used += rows.size() / PANEL * panel;
    for (size_t r = 0; memory && r < rows.size(); ++r)
      if (rows[r] >= 0)
        Number::pack(to + r / PANEL * panel + r % PANEL, steps,
                     source + size_t(rows[r]) * pitch + first, last - first);
    return {to, steps};
  }

  const float* vector(const float* source, const std::vector<int>& rows) {
    return reinterpret_cast<const float*>(matrix<Float32>(source, 1, rows, 0, 1).panels);
  }
};

struct Network {
  Sizes sizes;
  std::vector<Layer> layers;
  Matrix head_condition, head, logits[PARTS];
  const float *head_condition_bias, *logits_bias;
  std::vector<const float*> table;  // (inputs * 257) rows: residual, then skips
  std::vector<double> amplitudes, thresholds;
  size_t recent;  // where the last amplitudes begin in a stream's state, in words
  size_t state_words;
  int format;  // 0: float32, 1: bfloat16, 2: int8
  Owned<Word> memory;
};

// The numbers first .. last - 1, then -1 up to the next multiple of `unit`.
std::vector<int> padded(int first, int last, int unit) {
  std::vector<int> rows(round_up(last - first, unit), -1);
  for (int i = first; i < last; ++i) rows[i - first] = i;
  return rows;
}

void append(std::vector<int>& rows, const std::vector<int>& more) {
  rows.insert(rows.end(), more.begin(), more.end());
}

// First channel of a part; of part PARTS: the number of channels.
int begin_of(int part, int channels) { return part == 0 ? 0 : part == 1 ? (channels + 1) / 2 : channels; }

// Rows of the dilated convolution: for each part its gates, then its values.
std::vector<int> hidden_rows(const Sizes& z) {
  std::vector<int> all;
  for (int part = 0; part < PARTS; ++part) {
    const int first = begin_of(part, z.channels), last = begin_of(part + 1, z.channels);
    std::vector<int> rows(z.hidden, -1);
    for (int c = first; c < last; ++c) {
      rows[c - first] = c;
      rows[z.gates + c - first] = z.channels + c;
    }
    append(all, rows);
  }
  return all;
}

std::vector<int> head_rows(const Sizes& z) {
  std::vector<int> all;
  for (int part = 0; part < PARTS; ++part) {
    std::vector<int> rows = padded(begin_of(part, z.skip), begin_of(part + 1, z.skip), PANEL);
    rows.resize(z.head, -1);
    append(all, rows);
  }
  return all;
}

Sizes sizes_of(const Source& s) {
  Sizes z{s.kernel, s.order, s.layers, s.channels, s.skip, s.latent};
  z.inputs = z.kernel + (z.order > 0);
  z.gates = round_up((z.channels + 1) / 2, LANES);
  z.hidden = round_up(2 * z.gates, PANEL);
  z.head = round_up((z.skip + 1) / 2, PANEL);
  z.residual = round_up(z.channels, PANEL);
  z.skips = round_up(z.skip, PANEL);
  return z;
}

template <class Number>
Layer pack_layer(Packer& packer, const Source& s, const Sizes& z, int l) {
  const int C = z.channels, S = z.skip;
  const std::vector<int> hidden = hidden_rows(z);
  const size_t taps = size_t(l) * 2 * C;
  Layer layer{};
  layer.dilation = s.dilations[l];
  layer.previous = packer.matrix<Number>(s.previous + taps * C, C, hidden, 0, C);
  layer.current = packer.matrix<Number>(s.current + taps * C, C, hidden, 0, C);
  const float* out = s.out + size_t(l) * (C + S) * C;
  for (int part = 0; part < PARTS; ++part) {
    const int first = begin_of(part, C), last = begin_of(part + 1, C);
    layer.residual[part] = packer.matrix<Number>(out, C, padded(0, C, PANEL), first, last);
    layer.skip[part] = packer.matrix<Number>(out, C, padded(C, C + S, PANEL), first, last);
  }
  layer.bias = packer.vector(s.residual_bias + size_t(l) * C, padded(0, C, PANEL));
  return layer;
}

template <class Number>
void pack_all(Packer& packer, const Source& s, Network& net) {
  const Sizes& z = net.sizes;
  const int width = z.channels + z.skip;
  net.layers.clear();
  net.table.clear();
  net.state_words = HEADER + round_up(z.inputs, 16);  // the last codes come next
  net.recent = net.state_words;
  net.state_words += 2 * z.order;
  for (int l = 0; l < z.layers; ++l) {
    net.layers.push_back(pack_layer<Number>(packer, s, z, l));
    net.layers.back().ring = net.state_words;
    net.state_words += size_t(s.dilations[l]) * length<Number>(z.channels);
  }
  const std::vector<int> hidden = hidden_rows(z);
  for (int l = 0; l < z.layers; ++l) {
    Layer& layer = net.layers[l];
    const size_t taps = size_t(l) * 2 * z.channels;
    layer.condition = packer.matrix<Float32>(s.condition + taps * z.latent, z.latent, hidden, 0, z.latent);
    layer.condition_bias = packer.vector(s.condition_bias + taps, hidden);
  }
  const size_t last = size_t(z.layers) * 2 * z.channels;
  const std::vector<int> rows = head_rows(z), all = padded(0, CODES, PANEL);
  net.head_condition =
      packer.matrix<Float32>(s.condition + last * z.latent, z.latent, rows, 0, z.latent);
  net.head_condition_bias = packer.vector(s.condition_bias + last, rows);
  net.head = packer.matrix<Number>(s.head, z.skip, rows, 0, z.skip);
  for (int part = 0; part < PARTS; ++part)
    net.logits[part] = packer.matrix<Number>(s.logits, z.skip, all, begin_of(part, z.skip),
                                             begin_of(part + 1, z.skip));
  net.logits_bias = packer.vector(s.logits_bias, all);
  std::vector<int> entry = padded(0, z.channels, PANEL);
  append(entry, padded(z.channels, width, PANEL));
  for (int row = 0; row < z.inputs * (CODES + 1); ++row)
    net.table.push_back(packer.vector(s.table + size_t(row) * width, entry));
}

template <class Number>
void pack(const Source& source, Network& net) {
  net.sizes = sizes_of(source);
  net.amplitudes.assign(source.amplitudes, source.amplitudes + CODES);
  net.thresholds.assign(source.thresholds, source.thresholds + CODES - 1);
  Packer counting;
  pack_all<Number>(counting, source, net);
  net.memory = allocate<Word>(counting.used);
  Packer packer{net.memory.get()};
  pack_all<Number>(packer, source, net);
}

// ------------------------------------------------------------------------------- the threads

// What the one or two threads that make the same streams share. A thread writes the sums of its
// parts, arrives, and waits for the other one before it adds them.
struct Team {
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  } arrived[PARTS];
  std::atomic<int64_t> lost{0};  // microseconds in which the other thread did not have its core
  bool quit = false;             // written by member 0 before a meeting, read by both after it
  Owned<float> residual[2][PARTS];  // two sets: a layer's sums are read while the next one's appear
  Owned<float> skips[PARTS], scores[PARTS];

  Team(const Sizes& z, int streams) {
    for (int part = 0; part < PARTS; ++part) {
      for (auto& set : residual) set[part] = allocate<float>(size_t(streams) * z.residual);
      skips[part] = allocate<float>(size_t(streams) * z.skips);
      scores[part] = allocate<float>(size_t(streams) * CODES);
    }
  }

  void arrive(int member, int64_t meeting) {
    arrived[member].value.store(meeting, std::memory_order_release);
  }

  // Spins, as the other one is a microsecond away; but if it has lost its core, gives way.
  void wait(int member, int64_t meeting) {
    const std::atomic<int64_t>& other = arrived[1 - member].value;
    for (int spins = 0; spins < PATIENCE; ++spins) {
      if (other.load(std::memory_order_acquire) >= meeting) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    const Clock::time_point begin = Clock::now();
    while (other.load(std::memory_order_acquire) < meeting) std::this_thread::yield();
    lost.fetch_add(seconds_since(begin) * 1e6f, std::memory_order_relaxed);
  }
};

// ------------------------------------------------------------------------- the sample loop

// One thread's view of a group of streams that advance together.
template <class Number>
class Worker {
 public:
  Worker(const Network& net, const Call& call, Team& team, int first_stream, int streams,
         int member, int members)
      : net(net), z(net.sizes), call(call), team(team), first_stream(first_stream), N(streams),
        member(member), shared(members > 1), first(shared ? member : 0),
        last(shared ? member + 1 : PARTS), ahead(N == 1 ? AHEAD : N == 2 ? AHEAD / 2 : 1) {
    base = allocate<float>(size_t(N) * conditions());
    early = allocate<float>(size_t(z.layers) * N * ahead * rows());
    hidden = allocate<float>(size_t(N) * std::max(rows(), PARTS * z.head));
    x = allocate<float>(size_t(N) * z.residual);
    input = allocate<Word>(size_t(N) * length<Number>(z.residual));
    gated = allocate<Word>(size_t(PARTS) * N * length<Number>(std::max(z.gates, z.head)));
    summed = allocate<Word>(size_t(N) * length<Number>(z.skips));
    rectified = allocate<float>(std::max(z.skips, z.head));
    past = allocate<int32_t>(size_t(N) * z.inputs);
    recent = allocate<double>(size_t(N) * (z.order + call.pool));
    frame = allocate<Word>(z.latent);
  }

  // The samples t, t + 1, ... of a latent frame. Returns where it stopped: at the frame's end, or
  // earlier if the team has quit.
  int run(int frame, int t) {
    std::memcpy(&position, state(0), sizeof position);
    for (int n = 0; n < N; ++n) {
      std::memcpy(&past[n * z.inputs], state(n) + HEADER, 4 * z.inputs);
      std::memcpy(amplitudes(n, t), state(n) + net.recent, sizeof(double) * z.order);
    }
    condition(frame);
    for (fresh = true; t < call.pool && !(shared && team.quit); ++t, ++position, fresh = false) {
      for (int n = 0; n < N && z.order; ++n) predict(n, frame, t);
      embed();
      for (int l = 0; l < z.layers; ++l) layer(l);
      head();
      for (int n = 0; n < N; ++n) choose(n, frame * int64_t(call.pool) + t);
    }
    return t;
  }

  // After the samples before `t` of a frame.
  void save(int t) {
    for (int n = 0; n < N; ++n) {
      std::memcpy(state(n), &position, sizeof position);
      std::memcpy(state(n) + HEADER, &past[n * z.inputs], 4 * z.inputs);
      std::memcpy(state(n) + net.recent, amplitudes(n, t), sizeof(double) * z.order);
    }
  }

 private:
  const Network& net;
  const Sizes& z;
  const Call& call;
  Team& team;
  const int first_stream, N, member;
  const bool shared;
  const int first, last;              // parts [first, last) are ours
  const int ahead;                    // samples for which a dilated tap is taken at once
  int64_t position = 0, meeting = 0;  // samples before this one; meetings so far
  bool fresh = true;                  // nothing has been taken ahead yet
  Owned<float> base, early, hidden, x, rectified;
  Owned<Word> input, gated, summed, frame;
  Owned<int32_t> past;
  Owned<double> recent;

  void arrive() {
    if (shared) team.arrive(member, ++meeting);
  }
  void wait() {
    if (shared) team.wait(member, meeting);
  }

  int rows() const { return PARTS * z.hidden; }
  int conditions() const { return z.layers * rows() + PARTS * z.head; }
  Word* state(int n) const { return call.states + (first_stream + n) * net.state_words; }
  // The amplitudes that predict sample t of a frame, oldest first.
  double* amplitudes(int n, int t) { return recent.get() + size_t(n) * (z.order + call.pool) + t; }
  Columns<float> all(Owned<float>& memory, int step) const { return {memory.get(), step}; }

  // What the latent frame adds to every layer, and to the head.
  void condition(int f) {
    for (int n = 0; n < N; ++n) {
      const float* latent =
          call.latent + (int64_t(first_stream + n) * call.frames + f) * z.latent;
      std::memcpy(frame.get(), latent, 4 * z.latent);
      float* to = base.get() + size_t(n) * conditions();
      for (const Layer& layer : net.layers) {
        project(layer.condition, layer.condition_bias, z.hidden, to);
        to += rows();
      }
      project(net.head_condition, net.head_condition_bias, z.head, to);
    }
  }

  void project(const Matrix& matrix, const float* bias, int part, float* to) {
    product<Float32>(1, {frame.get(), 0},
                     {matrix, first * part / PANEL, last * part / PANEL, {bias + first * part, 0},
                      {to + first * part, 0}});
  }

  // The code of the linear prediction: the number of thresholds below it.
  void predict(int n, int frame, int t) {
    const double* recent = amplitudes(n, t);
    const double* predictor =
        call.predictors + (int64_t(first_stream + n) * call.frames + frame) * z.order;
    double sums[8] = {}, sum = 0;
    int i = 0;
    for (; i + 8 <= z.order; i += 8)
      for (int k = 0; k < 8; ++k) sums[k] += predictor[i + k] * recent[i + k];
    for (; i < z.order; ++i) sum += predictor[i] * recent[i];
    for (double part : sums) sum += part;
    const auto& steps = net.thresholds;
    past[n * z.inputs + z.kernel] =
        1 + (std::lower_bound(steps.begin(), steps.end(), sum) - steps.begin());
  }

  // The codes through the first layer, and through its skip: two tables.
  void embed() {
    for (int n = 0; n < N; ++n) {
      float* to = x.get() + n * z.residual;
      float* skips = team.skips[0].get() + n * z.skips;
      for (int k = 0; k < z.inputs; ++k) {
        const float* row = net.table[k * (CODES + 1) + past[n * z.inputs + k]];
        for (int c = 0; c < z.residual; c += LANES)
          store(to + c, k ? load(to + c) + load(row + c) : load(row + c));
        for (int c = 0; first == 0 && c < z.skips; c += LANES)
          store(skips + c, k ? load(skips + c) + load(row + z.residual + c)
                             : load(row + z.residual + c));
      }
    }
    if (last == PARTS) std::memset(team.skips[1].get(), 0, sizeof(float) * N * z.skips);
  }

  void layer(int l) {
    const Layer& layer = net.layers[l];
    const int width = length<Number>(z.channels);
    const Columns<const Word> now{input.get(), length<Number>(z.residual)};
    for (int n = 0; n < N; ++n)
      Number::put(&input[n * now.step], layer.current.steps, &x[n * z.residual], z.residual);

    const int block = std::min(layer.dilation, ahead);
    const int k = position % block;
    if (k == 0 || fresh) look_ahead(l, k, block);
    float* from = early.get() + (size_t(l) * N * ahead + k) * rows();
    product<Number>(N, now,
                    {layer.current, first * z.hidden / PANEL, last * z.hidden / PANEL,
                     {from + first * z.hidden, ahead * rows()},
                     {hidden.get() + first * z.hidden, rows()}});
    gate_all(l);

    const bool over = l + 1 == z.layers;  // nobody needs the last layer's residual
    for (int part = first; part < last; ++part) {
      const Columns<float> skips = all(team.skips[part], z.skips);
      const Rows skip{layer.skip[part], 0, z.skips / PANEL, {skips.first, skips.step}, skips};
      Rows residual{layer.residual[part], 0, over ? 0 : z.residual / PANEL,
                    {part ? nullptr : x.get(), z.residual}, all(team.residual[l & 1][part], z.residual)};
      if (shared && !over) {  // the other thread is waiting for it
        product<Number>(N, gates_of(part), residual);
        arrive();
        residual.last = 0;
      }
      product<Number>(N, gates_of(part), residual, skip);
    }
    if (over) arrive();
    wait();
    // Only now has everybody read the row that this replaces.
    for (int n = 0; n < N && member == 0; ++n)
      std::memcpy(state(n) + layer.ring + position % layer.dilation * width, now[n], 4 * width);
    const float *one = team.residual[l & 1][0].get(), *two = team.residual[l & 1][1].get();
    for (int n = 0; n < N && !over; ++n)
      for (int c = 0; c < z.residual; c += LANES) {
        const int i = n * z.residual + c;
        store(&x[i], load(one + i) + load(two + i) + load(layer.bias + c));
      }
  }

  // W_prev x[t - d] for this sample, number k of a block, and those that follow in the block.
  void look_ahead(int l, int k, int block) {
    const Layer& layer = net.layers[l];
    const int width = length<Number>(z.channels);
    const size_t slot = layer.ring + position % layer.dilation * width;
    const int from = first * z.hidden, panel = from / PANEL, until = last * z.hidden / PANEL;
    float* to = early.get() + (size_t(l) * N * ahead + k) * rows() + from;
    if (ahead == 1)
      return product<Number>(N, {state(0) + slot, ptrdiff_t(net.state_words)},
                             {layer.previous, panel, until, {}, {to, rows()}});
    for (int n = 0; n < N; ++n)
      product<Number>(block - k, {state(n) + slot, width},
                      {layer.previous, panel, until, {}, {to + size_t(n) * ahead * rows(), rows()}});
  }

  Columns<Word> gates(int part) {
    const int step = length<Number>(std::max(z.gates, z.head));
    return {gated.get() + size_t(part) * N * step, step};
  }
  Columns<const Word> gates_of(int part) { return {gates(part).first, gates(part).step}; }

  void gate_all(int l) {
    for (int part = first; part < last; ++part)
      for (int n = 0; n < N; ++n) {
        float* h = hidden.get() + n * rows() + part * z.hidden;
        const float* b = base.get() + size_t(n) * conditions() + l * rows() + part * z.hidden;
        for (int g = 0; g < z.gates; g += LANES)
          store(h + g, gate(load(h + g) + load(b + g), load(h + z.gates + g) + load(b + z.gates + g)));
        Number::put(gates(part)[n], net.layers[l].skip[part].steps, h, z.gates);
      }
  }

  // ReLU, hidden layer, ReLU, logits: each part its own hidden channels and their columns.
  void head() {
    const int step = length<Number>(z.skips);
    for (int n = 0; n < N; ++n) {
      rectify(team.skips[0].get() + n * z.skips, team.skips[1].get() + n * z.skips, z.skips);
      Number::put(&summed[n * step], net.head.steps, rectified.get(), z.skips);
    }
    const int width = PARTS * z.head;
    product<Number>(N, {summed.get(), step},
                    {net.head, first * z.head / PANEL, last * z.head / PANEL,
                     {base.get() + z.layers * rows() + first * z.head, conditions()},
                     {hidden.get() + first * z.head, width}});
    for (int part = first; part < last; ++part) {
      for (int n = 0; n < N; ++n) {
        rectify(&hidden[n * width + part * z.head], nullptr, z.head);
        Number::put(gates(part)[n], net.logits[part].steps, rectified.get(), z.head);
      }
      product<Number>(N, gates_of(part),
                      {net.logits[part], 0, CODES / PANEL, {part ? nullptr : net.logits_bias, 0},
                       all(team.scores[part], CODES)});
    }
    if (shared && member == 0) team.quit = team.lost.load(std::memory_order_relaxed) > LOSS;
    arrive();
    wait();
  }

  // The sum of two vectors, or one of them, and nothing below zero.
  void rectify(const float* one, const float* two, int count) {
    for (int c = 0; c < count; c += LANES)
      store(&rectified[c], largest(two ? load(one + c) + load(two + c) : load(one + c), Floats{}));
  }

  // The smallest code whose cumulative probability exceeds u. Every member does it: nothing to tell.
  void choose(int n, int64_t t) {
    alignas(64) float scores[CODES];
    const float *one = team.scores[0].get() + n * CODES, *two = team.scores[1].get() + n * CODES;
    for (int c = 0; c < CODES; c += LANES) store(scores + c, load(one + c) + load(two + c));
    const int64_t i = int64_t(first_stream + n) * call.frames * call.pool + t;
    const int code = call.temperature > 0 ? sample(scores, call.temperature, call.uniforms[i])
                                          : std::max_element(scores, scores + CODES) - scores;
    if (member == 0) {
      call.codes[i] = code;
      if (call.logits) std::memcpy(call.logits + i * CODES, scores, sizeof scores);
    }
    const int known = call.forced ? call.forced[i] : code;
    int32_t* codes = &past[n * z.inputs];
    for (int k = 0; k + 1 < z.kernel; ++k) codes[k] = codes[k + 1];
    codes[z.kernel - 1] = 1 + known;
    amplitudes(n, t % call.pool)[z.order] = net.amplitudes[known];
  }

  // Sums in double precision: of 16 codes each first, then within the one that holds the step.
  static int sample(const float* scores, float temperature, float uniform) {
    alignas(64) float weights[CODES];
    Floats top = load(scores);
    for (int c = LANES; c < CODES; c += LANES) top = largest(top, load(scores + c));
    const float most = largest_of(top);
    for (int c = 0; c < CODES; c += LANES)
      store(weights + c, exponential((load(scores + c) - most) / temperature));
    double blocks[16], total = 0;
    for (int b = 0; b < 16; ++b) {
      double sums[8];
      for (int i = 0; i < 8; ++i) sums[i] = double(weights[16 * b + i]) + weights[16 * b + i + 8];
      for (int half = 4; half; half /= 2)
        for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
      total += blocks[b] = sums[0];
    }
    double left = uniform * total;
    int block = 0;
    while (block < 15 && blocks[block] <= left) left -= blocks[block++];
    int code = 16 * block;
    while (code < 16 * block + 15 && weights[code] <= left) left -= weights[code++];
    return code;
  }
};

constexpr int GROUP = 24;  // streams that advance together, at most

// One thread makes the streams [first, last).
template <class Number>
void make(const Network& net, const Call& call, int first, int last) {
  const int groups = (last - first + GROUP - 1) / GROUP;
  for (int g = 0; g < groups; ++g) {
    const int from = first + (last - first) * g / groups;
    const int count = first + (last - first) * (g + 1) / groups - from;
    Team team(net.sizes, count);
    Worker<Number> worker(net, call, team, from, count, 0, 1);
    for (int frame = 0; frame < call.frames; ++frame) {
      worker.run(frame, 0);
      worker.save(call.pool);
    }
  }
}

// Two threads make N streams. Together, each takes one part of every stream and reads only half of
// the weights; apart, each has its own streams (a single one leaves the other thread idle) and waits
// for nobody. Which is faster depends on the caches, the size of the decoder, and on whether other
// programs want the cores. So both ways are timed, frame by frame, and the faster one is taken; the
// other one has a chance every 32 frames. The codes are the same.
template <class Number>
void make_by_two(const Network& net, const Call& call, int from, int N) {
  const int half = N / 2;
  Team team(net.sizes, N), low(net.sizes, half), high(net.sizes, N - half);
  Worker<Number> one(net, call, team, from, N, 0, 2), two(net, call, team, from, N, 1, 2);
  Worker<Number> alone(net, call, high, from + half, N - half, 0, 1);
  Worker<Number> aside(net, call, low, from, half, 0, 1);
  float* seconds = reinterpret_cast<float*>(call.states + from * net.state_words + 2);
  for (int frame = 0; frame < call.frames; ++frame) {
    int& count = reinterpret_cast<int&>(seconds[2]);
    bool pair = seconds[0] >= seconds[1];
    if (++count % 32 == 0) pair = !pair;
    const Clock::time_point begin = Clock::now();
    int t = 0;
    if (pair) {
      team.lost = team.quit = 0;
      auto other = std::async(std::launch::async, [&] { two.run(frame, 0); });
      t = one.run(frame, 0);
      other.get();
      one.save(t);
    }
    if (t < call.pool) {
      const auto finish = [&](Worker<Number>& worker) {
        worker.run(frame, t);
        worker.save(call.pool);
      };
      std::future<void> other;
      if (half) other = std::async(std::launch::async, [&] { finish(aside); });
      finish(alone);
      if (half) other.get();
    }
    seconds[pair] = team.quit && pair ? 1e9f : seconds_since(begin);
  }
}

template <class Number>
void generate(const Network& net, const Call& call) {
  const bool by_two = call.threads % 2 == 0 || 2 * call.streams <= call.threads;
  share(call.streams, by_two ? call.threads / 2 : call.threads, [&](int first, int last) {
    if (!by_two) return make<Number>(net, call, first, last);
    const int groups = (last - first + GROUP - 1) / GROUP;
    for (int g = 0; g < groups; ++g) {
      const int from = first + (last - first) * g / groups;
      make_by_two<Number>(net, call, from, first + (last - first) * (g + 1) / groups - from);
    }
  });
}

}  // namespace

// ------------------------------------------------------------------------- what Python calls

extern "C" {

// Formats: 0 is float32, 1 bfloat16, 2 int8.
void* umt_pack(const Source* source, int format) try {
  auto net = std::make_unique<Network>();
  net->format = format;
  (format == 2 ? pack<Int8> : format == 1 ? pack<Bfloat16> : pack<Float32>)(*source, *net);
  return net.release();
} catch (...) {
  return nullptr;
}

void umt_free(void* network) { delete static_cast<Network*>(network); }

size_t umt_state_words(const void* network) {
  return static_cast<const Network*>(network)->state_words;
}

// Returns 0, or 1 if memory or threads ran out.
int umt_generate(const void* network, const Call* call) try {
  const Network& net = *static_cast<const Network*>(network);
  (net.format == 2   ? generate<Int8>
   : net.format == 1 ? generate<Bfloat16>
                     : generate<Float32>)(net, *call);
  return 0;
} catch (...) {
  return 1;
}
}
