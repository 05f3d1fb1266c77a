// The decoder, one sample after another, on a GPU.
//
// Read `reference.py` first: it is the same loop in PyTorch. Here a block of threads makes STREAMS
// streams from beginning to end. It reads every weight once per sample and uses it for all of its
// streams; it knows nothing of other blocks, so any number of them runs on a GPU of any size. A
// launch makes some samples of one latent frame; what the next one needs stays in global memory.
//
// Phases. The text is a sequence of `PHASE { ... }`. All threads of the block pass through one and
// meet at its closing brace; `EACH(i, n)` deals the numbers 0 .. n - 1 out to them. No variable of a
// thread outlives its phase. So the same text is plain C++ if a phase is a loop over the threads:
// tests/kernel_on_cpu.cpp compiles it like that, lets the threads run in any order, and compares
// with the reference.
//
// Layout. Streams lie innermost everywhere: a vector is [channel][stream]. Matrices are turned,
// [input][output], so that neighbouring threads read neighbouring weights. Of the 2C outputs of a
// dilated convolution, gate c is number 2c and its value 2c + 1. CHANNELS and SKIP are multiples of
// four; `cuda.py` pads with zeros, which change no sum.
//
// Time. Layer l needs W_prev x[t - d] + W_cur x[t], and the first product is known d samples early.
// Where reading the weights is all that costs (one stream or two), it is taken for AHEAD samples at
// once. A sum is always taken in the same order, so a stream does not depend on its company.

#ifndef PHASE  // the CUDA half; the tests bring their own. Without the 1, registers would be spilled
#define DEVICE __device__ inline
#define SHARED __shared__
#define ENTRY extern "C" __global__ void __launch_bounds__(THREADS, 1)
#define BLOCK blockIdx.x
#define UNROLLED _Pragma("unroll")
#define UNROLLED_NOT _Pragma("unroll 1")
#define PHASE for (int thread = threadIdx.x, once = 1; once; once = 0, __syncthreads())
#endif
#define EACH(i, n) for (int i = thread; i < (n); i += THREADS)

// Defined by the compiler's command line: CHANNELS, SKIP, LATENT, KERNEL (of the first layer),
// ORDER (of the linear prediction; 0: there is none), LAYERS, STREAMS and THREADS of a block, ROWS
// and COLUMNS of a thread's tile, AHEAD.
constexpr int CODES = 256, PARTS = 16;  // the distribution is summed in 16 parts of 16 codes
constexpr int HIDDEN = 2 * CHANNELS;    // gates and values of a layer
constexpr int OUT = CHANNELS + SKIP;    // residual first, then skip
constexpr int INPUTS = KERNEL + (ORDER > 0);  // codes that are looked up, the prediction's last
constexpr int CONDITIONS = LAYERS * HIDDEN + SKIP;  // the head's last
constexpr int WIDEST = CHANNELS > SKIP ? CHANNELS : SKIP;
constexpr int SCRATCH = (1 + AHEAD) * CHANNELS > CODES ? (1 + AHEAD) * CHANNELS : CODES;

struct Call {  // `_Call` in cuda.py; T = frames * pool, G = ceil(streams / STREAMS) blocks
  const float* table;           // (INPUTS, 257, OUT): row 0 before the first sample, row 1 + code
  const float* condition;       // (LATENT, CONDITIONS)
  const float* condition_bias;  // (CONDITIONS)
  const float* previous;        // (LAYERS, CHANNELS, HIDDEN): the tap on x[t - d]
  const float* current;         // (LAYERS, CHANNELS, HIDDEN): the tap on x[t]
  const float* out;             // (LAYERS, CHANNELS, OUT)
  const float* residual_bias;   // (LAYERS, CHANNELS)
  const float* head;            // (SKIP, SKIP)
  const float* logits;          // (SKIP, CODES)
  const float* logits_bias;     // (CODES)
  const int* begins;            // (LAYERS + 1): first row of every layer's ring; then their number
  float* rings;                 // (G, rows, CHANNELS, STREAMS): slot t mod d holds x[t - d]
  int* slots;                   // (G, LAYERS + 1): of every ring, t mod d; then `oldest`
  float* early;                 // (G, LAYERS, AHEAD, HIDDEN, STREAMS): W_prev x, taken ahead
  float* conditions;            // (G, CONDITIONS, STREAMS): what the latent frame adds
  int* past;                    // (G, INPUTS, STREAMS): 1 + the last codes, oldest first
  double* recent;               // (G, ORDER, STREAMS): a ring of amplitudes
  const double* amplitudes;     // (CODES)
  const double* thresholds;     // (CODES - 1): between neighbouring codes
  const float* latent;          // (streams, frames, LATENT)
  const double* predictors;     // (streams, frames, ORDER), oldest sample first
  const float* uniforms;        // (streams, T), in [0, 1)
  unsigned char* codes;         // (streams, T), written
  float* scores;                // null, or (streams, T, CODES): the logits, written
  int streams, frames, pool;    // of this call
  int first, last;              // this launch makes the samples first .. last - 1, of one frame
  float temperature;
};

template <int N>
struct alignas(N < 4 ? 4 * N : 16) Vector {  // what one instruction loads, or two
  float at[N];
};

template <int N>
DEVICE const Vector<N>& vector(const float* from) {
  return *reinterpret_cast<const Vector<N>*>(from);
}

template <int N>
DEVICE Vector<N>& vector(float* from) {
  return *reinterpret_cast<Vector<N>*>(from);
}

// Some rows (outputs) and columns (streams) of a product with ALL rows and PITCH columns: what one
// thread sums up at a time. Neighbouring tiles have neighbouring rows.
template <int ALL, int PITCH = STREAMS, int WIDTH = COLUMNS>
struct Tile {
  static constexpr int DOWN = ALL / ROWS, COUNT = DOWN * (PITCH / WIDTH);
  int row, column;
  float sum[ROWS][WIDTH];

  DEVICE explicit Tile(int i) : row(i % DOWN * ROWS), column(i / DOWN * WIDTH), sum{} {}

  // sum += W x. The next weights are on their way while these are used.
  template <int INPUTS>
  DEVICE void add(const float* weights, const float* x) {
    constexpr int BATCH = INPUTS % (32 / ROWS) ? 4 : 32 / ROWS;
    Vector<ROWS> now[BATCH], next[BATCH];
    const auto fetch = [&](int i) {
      UNROLLED
      for (int k = 0; k < BATCH; ++k) next[k] = vector<ROWS>(weights + (i + k) * ALL + row);
    };
    fetch(0);
    UNROLLED_NOT
    for (int i = 0; i < INPUTS; i += BATCH) {
      UNROLLED
      for (int k = 0; k < BATCH; ++k) now[k] = next[k];
      if (i + BATCH < INPUTS) fetch(i + BATCH);
      UNROLLED
      for (int k = 0; k < BATCH; ++k) {
        const Vector<WIDTH> v = vector<WIDTH>(x + (i + k) * PITCH + column);
        UNROLLED
        for (int r = 0; r < ROWS; ++r)
          UNROLLED
          for (int n = 0; n < WIDTH; ++n) sum[r][n] += now[k].at[r] * v.at[n];
      }
    }
  }
};

// A slot of a ring to shared memory.
DEVICE void copy(int thread, const float* from, float* to) {
  EACH(i, CHANNELS * STREAMS / 4) vector<4>(to + 4 * i) = vector<4>(from + 4 * i);
}

// sigmoid(a) tanh(b), with one division. The clip at 40 keeps the product finite.
DEVICE float gate(float a, float b) {
  const float p = expf(fminf(-a, 40.f)), q = expf(fminf(-2.f * b, 40.f));
  return (1.f - q) / ((1.f + p) * (1.f + q));
}

ENTRY umt_generate(const Call call) {
  // x and the past x of a layer; the same memory holds the logits when nobody needs those two.
  alignas(16) SHARED float scratch[SCRATCH * STREAMS];
  alignas(16) SHARED float gated[WIDEST * STREAMS];  // after the gates; the head's hidden layer
  alignas(16) SHARED float skips[SKIP * STREAMS];
  SHARED double sums[PARTS * STREAMS];
  SHARED float tops[PARTS * STREAMS];
  SHARED int slots[LAYERS + 1];
  float* const x = scratch;
  float* const before = scratch + CHANNELS * STREAMS;  // [channel][sample taken ahead][stream]
  float* const scores = scratch;

  const int group = BLOCK;
  float* const rings = call.rings + (long long)group * call.begins[LAYERS] * CHANNELS * STREAMS;
  float* const early = call.early + (long long)group * LAYERS * AHEAD * HIDDEN * STREAMS;
  float* const conditions = call.conditions + (long long)group * CONDITIONS * STREAMS;
  int* const past = call.past + group * INPUTS * STREAMS;
  double* const recent = call.recent + group * ORDER * STREAMS;
  const auto oldest = [&](int t) {  // row of `recent`; the sample then takes its place
    return (slots[LAYERS] + t - call.first) % (ORDER > 0 ? ORDER : 1);
  };
  const auto ring = [&](int l) {
    return rings + (long long)(call.begins[l] + slots[l]) * CHANNELS * STREAMS;
  };

  PHASE {
    EACH(i, CONDITIONS * STREAMS) {
      const int row = i % CONDITIONS, n = i / CONDITIONS, stream = group * STREAMS + n;
      const float* latent =
          call.latent + ((long long)stream * call.frames + call.first / call.pool) * LATENT;
      float sum = call.condition_bias[row];
      for (int k = 0; k < LATENT && stream < call.streams; ++k)
        sum += call.condition[k * CONDITIONS + row] * latent[k];
      conditions[row * STREAMS + n] = sum;
    }
    EACH(l, LAYERS + 1) slots[l] = call.slots[group * (LAYERS + 1) + l];
  }

  for (int t = call.first; t < call.last; ++t) {
    if (ORDER > 0) {
      PHASE {  // the linear prediction's sum, in parts
        EACH(i, PARTS * STREAMS) {
          const int n = i % STREAMS, stream = group * STREAMS + n;
          const double* predictor =
              call.predictors + ((long long)stream * call.frames + t / call.pool) * ORDER;
          sums[i] = 0;
          for (int k = i / STREAMS; k < ORDER && stream < call.streams; k += PARTS) {
            const int at = oldest(t) + k;
            sums[i] += predictor[k] * recent[(at < ORDER ? at : at - ORDER) * STREAMS + n];
          }
        }
      }
      PHASE {  // its code: the number of thresholds below it
        EACH(n, STREAMS) {
          double sum = 0;
          for (int k = 0; k < PARTS; ++k) sum += sums[k * STREAMS + n];
          int code = 0;
          for (int step = CODES / 2; step; step /= 2)
            if (call.thresholds[code + step - 1] < sum) code += step;
          past[KERNEL * STREAMS + n] = 1 + code;
        }
      }
    }

    PHASE {  // the last codes through the first layer, and through its skip: tables
      EACH(i, OUT * STREAMS) {
        const int c = i / STREAMS, n = i % STREAMS;
        float sum = 0;
        for (int k = 0; k < INPUTS; ++k)
          sum += call.table[(k * (CODES + 1) + past[k * STREAMS + n]) * OUT + c];
        *(c < CHANNELS ? x + i : skips + (i - CHANNELS * STREAMS)) = sum;
      }
      if (AHEAD == 1) copy(thread, ring(0), before);
    }

    for (int l = 0; AHEAD > 1 && l < LAYERS; ++l) {
      const int k = slots[l] % AHEAD, left = call.begins[l + 1] - call.begins[l] - slots[l];
      if (k) continue;
      PHASE {  // the samples from here to the block's end, or to the ring's
        EACH(i, AHEAD * CHANNELS * STREAMS) {
          const int j = i / (CHANNELS * STREAMS), c = i / STREAMS % CHANNELS, n = i % STREAMS;
          before[(c * AHEAD + j) * STREAMS + n] = j < left ? ring(l)[i] : 0;
        }
      }
      PHASE {  // the tap on all of them
        constexpr int WIDTH = AHEAD * STREAMS;
        using Ahead = Tile<HIDDEN, WIDTH, WIDTH>;
        EACH(i, Ahead::COUNT) {
          Ahead tile(i);
          tile.add<CHANNELS>(call.previous + l * CHANNELS * HIDDEN, before);
          for (int r = 0; r < ROWS; ++r)
            for (int n = 0; n < WIDTH; ++n)
              early[((l * AHEAD + n / STREAMS) * HIDDEN + tile.row + r) * STREAMS + n % STREAMS] =
                  tile.sum[r][n];
        }
      }
    }

    for (int l = 0; l < LAYERS; ++l) {
      PHASE {  // dilated convolution, condition, gates
        EACH(i, Tile<HIDDEN>::COUNT) {
          Tile<HIDDEN> tile(i);
          const float* add = conditions + l * HIDDEN * STREAMS + tile.column;
          if (AHEAD == 1) {
            tile.add<CHANNELS>(call.previous + l * CHANNELS * HIDDEN, before);
          } else {
            const float* from = early + (l * AHEAD + slots[l] % AHEAD) * HIDDEN * STREAMS;
            for (int r = 0; r < ROWS; ++r)
              for (int n = 0; n < COLUMNS; ++n)
                tile.sum[r][n] = from[(tile.row + r) * STREAMS + tile.column + n];
          }
          tile.add<CHANNELS>(call.current + l * CHANNELS * HIDDEN, x);
          for (int r = 0; r < ROWS; r += 2) {
            const Vector<COLUMNS> a = vector<COLUMNS>(add + (tile.row + r) * STREAMS);
            const Vector<COLUMNS> b = vector<COLUMNS>(add + (tile.row + r + 1) * STREAMS);
            for (int n = 0; n < COLUMNS; ++n)
              gated[(tile.row + r) / 2 * STREAMS + tile.column + n] =
                  gate(tile.sum[r][n] + a.at[n], tile.sum[r + 1][n] + b.at[n]);
          }
        }
      }
      PHASE {  // residual and skip; x goes into the ring before it changes
        EACH(i, Tile<OUT>::COUNT) {
          Tile<OUT> tile(i);
          tile.add<CHANNELS>(call.out + l * CHANNELS * OUT, gated);
          if (tile.row < CHANNELS) {
            float* const slot = ring(l);
            const Vector<ROWS> bias = vector<ROWS>(call.residual_bias + l * CHANNELS + tile.row);
            for (int r = 0; r < ROWS; ++r) {
              const int at = (tile.row + r) * STREAMS + tile.column;
              Vector<COLUMNS>& here = vector<COLUMNS>(x + at);
              vector<COLUMNS>(slot + at) = here;
              for (int n = 0; n < COLUMNS; ++n) here.at[n] += tile.sum[r][n] + bias.at[r];
            }
          } else {
            for (int r = 0; r < ROWS; ++r)
              for (int n = 0; n < COLUMNS; ++n)
                skips[(tile.row + r - CHANNELS) * STREAMS + tile.column + n] += tile.sum[r][n];
          }
        }
        if (AHEAD == 1 && l + 1 < LAYERS) copy(thread, ring(l + 1), before);
      }
    }

    PHASE {  // ReLU
      EACH(i, SKIP * STREAMS) skips[i] = fmaxf(skips[i], 0);
    }
    PHASE {  // hidden layer of the head, condition, ReLU
      EACH(i, Tile<SKIP>::COUNT) {
        Tile<SKIP> tile(i);
        tile.add<SKIP>(call.head, skips);
        for (int r = 0; r < ROWS; ++r)
          for (int n = 0; n < COLUMNS; ++n) {
            const int at = (tile.row + r) * STREAMS + tile.column + n;
            gated[at] = fmaxf(tile.sum[r][n] + conditions[LAYERS * HIDDEN * STREAMS + at], 0);
          }
      }
    }
    PHASE {  // logits
      EACH(i, Tile<CODES>::COUNT) {
        Tile<CODES> tile(i);
        tile.add<SKIP>(call.logits, gated);
        for (int r = 0; r < ROWS; ++r)
          for (int n = 0; n < COLUMNS; ++n)
            scores[(tile.row + r) * STREAMS + tile.column + n] =
                tile.sum[r][n] + call.logits_bias[tile.row + r];
      }
    }
    PHASE {  // the largest logit of every part
      EACH(i, PARTS * STREAMS) {
        const float* part = scores + i / STREAMS * (CODES / PARTS) * STREAMS + i % STREAMS;
        tops[i] = part[0];
        for (int k = 1; k < CODES / PARTS; ++k) tops[i] = fmaxf(tops[i], part[k * STREAMS]);
      }
      EACH(i, call.scores ? CODES * STREAMS : 0) {
        const int code = i % CODES, n = i / CODES;
        const long long stream = group * STREAMS + n;
        if (stream < call.streams)
          call.scores[(stream * call.frames * call.pool + t) * CODES + code] =
              scores[code * STREAMS + n];
      }
    }
    PHASE {  // logits to weights, and the sum of every part
      EACH(i, call.temperature > 0 ? PARTS * STREAMS : 0) {
        float* part = scores + i / STREAMS * (CODES / PARTS) * STREAMS + i % STREAMS;
        float top = tops[i % STREAMS];
        for (int k = 1; k < PARTS; ++k) top = fmaxf(top, tops[k * STREAMS + i % STREAMS]);
        sums[i] = 0;
        for (int k = 0; k < CODES / PARTS; ++k)
          sums[i] += part[k * STREAMS] = expf((part[k * STREAMS] - top) / call.temperature);
      }
    }
    PHASE {  // the smallest code whose cumulative probability exceeds u; then all moves on
      EACH(n, STREAMS) {
        const long long stream = group * STREAMS + n;
        const bool real = stream < call.streams;  // the last block may have idle streams
        const long long at = stream * call.frames * call.pool + t;
        int part = 0, code;
        if (call.temperature > 0) {
          double left = 0;
          for (int k = 0; k < PARTS; ++k) left += sums[k * STREAMS + n];
          left *= real ? call.uniforms[at] : 0;
          while (part < PARTS - 1 && sums[part * STREAMS + n] <= left)
            left -= sums[part++ * STREAMS + n];
          const int until = (part + 1) * (CODES / PARTS) - 1;
          for (code = part * (CODES / PARTS); code < until; ++code) {
            if (scores[code * STREAMS + n] > left) break;
            left -= scores[code * STREAMS + n];
          }
        } else {  // the first of the largest
          for (int k = 1; k < PARTS; ++k)
            if (tops[k * STREAMS + n] > tops[part * STREAMS + n]) part = k;
          code = part * (CODES / PARTS);
          while (scores[code * STREAMS + n] < tops[part * STREAMS + n]) ++code;
        }
        if (real) call.codes[at] = code;
        for (int k = 0; k + 1 < KERNEL; ++k) past[k * STREAMS + n] = past[(k + 1) * STREAMS + n];
        past[(KERNEL - 1) * STREAMS + n] = 1 + code;
        if (ORDER > 0) recent[oldest(t) * STREAMS + n] = call.amplitudes[code];
      }
      EACH(l, LAYERS) if (++slots[l] == call.begins[l + 1] - call.begins[l]) slots[l] = 0;
    }
  }

  PHASE {
    EACH(l, LAYERS) call.slots[group * (LAYERS + 1) + l] = slots[l];
    if (thread == 0) call.slots[group * (LAYERS + 1) + LAYERS] = oldest(call.last);
  }
}
