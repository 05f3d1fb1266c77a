// The element-wise half of a decoder's training step: what stands between two matrix products, in
// one pass over memory each instead of a dozen. `fused.py` has the products and the derivation.
//
// Arrays are row-major, rows are samples: x (B, T, C) and so on. A is float or bfloat16 (`Half`).
// Work is shared out by latent frames, and sums are taken within a frame, so the results do not
// depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../generation/threads.h"

namespace {

struct Half {  // bfloat16: the upper half of a float
  uint16_t bits;
  Half() = default;
  Half(float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    bits = uint16_t((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
  operator float() const {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};

// e^x within 2 units in the last place, x clipped to [-60, 60]; plain arithmetic, so that the
// compiler can do many at once.
inline float exponential(float x) {
  x = x > 60.f ? 60.f : x < -60.f ? -60.f : x;
  const float n = std::rint(x * 1.44269504f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float sum = r * (1 / 5040.f) + 1 / 720.f;
  sum = sum * r + 1 / 120.f;
  sum = sum * r + 1 / 24.f;
  sum = sum * r + 1 / 6.f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.f;
  sum = sum * r + 1.f;
  const uint32_t word = uint32_t(int32_t(n) + 127) << 23;
  float power;  // 2^n; a product with it keeps NaN what it is
  std::memcpy(&power, &word, 4);
  return sum * power;
}

struct Shape {
  int64_t batch, frames, pool, channels, skip;
  int64_t samples() const { return frames * pool; }
};

// What enters a layer's dilated convolution: a[t] = [x[t - d], x[t]], zeros before the beginning.
template <class A>
inline void enter(const float* x, A* a, const Shape& z, int64_t t, int64_t dilation) {
  const int64_t C = z.channels;
  const float* past = x - dilation * C;
  if (t < dilation)
    for (int64_t c = 0; c < C; ++c) a[c] = 0.f;
  else
    for (int64_t c = 0; c < C; ++c) a[c] = past[c];
  for (int64_t c = 0; c < C; ++c) a[C + c] = x[c];
}

}  // namespace

// Every function twice: for float and for bfloat16.
#define BOTH(name, parameters, arguments)                   \
  extern "C" void name##_float parameters { name##_of<float> arguments; } \
  extern "C" void name##_half parameters { name##_of<Half> arguments; }

// x += o[:C] + bias, skips += o[C:]; o null: nothing is added. Then, if a is given, a for the next
// layer. Two sweeps, since a reads what another thread's x was: the first must be over.
template <class A>
void umt_residual_of(const Shape* shape, const void* o_, const float* bias, float* x, float* skips,
                     int64_t dilation, void* a_, int threads) {
  const Shape& z = *shape;
  const int64_t C = z.channels, S = z.skip, T = z.samples();
  const A* o = static_cast<const A*>(o_);
  A* a = static_cast<A*>(a_);
  if (o)
    share(z.batch * z.frames, threads, [&](int64_t first, int64_t last) {
      for (int64_t t = first * z.pool; t < last * z.pool; ++t) {
        const A* from = o + t * (C + S);
        float *to = x + t * C, *skip = skips + t * S;
        for (int64_t c = 0; c < C; ++c) to[c] += float(from[c]) + bias[c];
        for (int64_t c = 0; c < S; ++c) skip[c] += float(from[C + c]);
      }
    });
  if (a)
    share(z.batch * z.frames, threads, [&](int64_t first, int64_t last) {
      for (int64_t t = first * z.pool; t < last * z.pool; ++t)
        enter(x + t * C, a + t * 2 * C, z, t % T, dilation);
    });
}
BOTH(umt_residual, (const Shape* z, const void* o, const float* bias, float* x, float* skips,
                    int64_t dilation, void* a, int threads),
     (z, o, bias, x, skips, dilation, a, threads))

// g = sigmoid(h[:C] + condition[:C]) tanh(h[C:] + condition[C:]), condition (B, F, 2C) per frame.
template <class A>
void umt_gate_of(const Shape* shape, const void* h_, const float* condition, void* g_, int threads) {
  const Shape& z = *shape;
  const int64_t C = z.channels;
  share(z.batch * z.frames, threads, [&](int64_t first, int64_t last) {
    for (int64_t f = first; f < last; ++f) {
      const float *gate = condition + f * 2 * C, *value = gate + C;
      for (int64_t t = f * z.pool; t < (f + 1) * z.pool; ++t) {
        const A* h = static_cast<const A*>(h_) + t * 2 * C;
        A* g = static_cast<A*>(g_) + t * C;
        for (int64_t c = 0; c < C; ++c) {
          const float p = exponential(-(float(h[c]) + gate[c]));
          const float q = exponential(-2.f * (float(h[C + c]) + value[c]));
          g[c] = (1.f - q) / ((1.f + p) * (1.f + q));
        }
      }
    }
  });
}
BOTH(umt_gate, (const Shape* z, const void* h, const float* condition, void* g, int threads),
     (z, h, condition, g, threads))

// Backwards through the gate: dh (B, T, 2C) in the place of h, and its sum over each frame,
// dcondition (B, F, 2C).
template <class A>
void umt_ungate_of(const Shape* shape, void* h_, const float* condition, const void* dg_,
                   float* dcondition, int threads) {
  const Shape& z = *shape;
  const int64_t C = z.channels;
  share(z.batch * z.frames, threads, [&](int64_t first, int64_t last) {
    for (int64_t f = first; f < last; ++f) {
      const float *gate = condition + f * 2 * C, *value = gate + C;
      float *dgate = dcondition + f * 2 * C, *dvalue = dgate + C;
      std::fill(dgate, dgate + 2 * C, 0.f);
      for (int64_t t = f * z.pool; t < (f + 1) * z.pool; ++t) {
        A* h = static_cast<A*>(h_) + t * 2 * C;
        const A* dg = static_cast<const A*>(dg_) + t * C;
#pragma GCC ivdep
        for (int64_t c = 0; c < C; ++c) {
          const float p = exponential(-(float(h[c]) + gate[c]));
          const float q = exponential(-2.f * (float(h[C + c]) + value[c]));
          const float s = 1.f / (1.f + p), v = (1.f - q) / (1.f + q), d = dg[c];
          const float da = d * v * s * (1.f - s), db = d * s * (1.f - v * v);
          h[c] = da;
          h[C + c] = db;
          dgate[c] += da;
          dvalue[c] += db;
        }
      }
    }
  });
}
BOTH(umt_ungate, (const Shape* z, void* h, const float* condition, const void* dg,
                  float* dcondition, int threads),
     (z, h, condition, dg, dcondition, threads))

// Backwards through the residual: dx[t] += da[t, C:] + da[t + d, :C], if da is given. Then, if
// out is given, out = [dx, dskip], what comes back into the products of the layer below.
template <class A>
void umt_descend_of(const Shape* shape, const void* da_, int64_t dilation, float* dx,
                    const void* dskip_, void* out_, int threads) {
  const Shape& z = *shape;
  const int64_t C = z.channels, S = z.skip, T = z.samples();
  const A *da = static_cast<const A*>(da_), *dskip = static_cast<const A*>(dskip_);
  A* out = static_cast<A*>(out_);
  share(z.batch * z.frames, threads, [&](int64_t first, int64_t last) {
    for (int64_t t = first * z.pool; t < last * z.pool; ++t) {
      float* d = dx + t * C;
      if (da) {
        const A* now = da + t * 2 * C + C;
        for (int64_t c = 0; c < C; ++c) d[c] += float(now[c]);
        if (t % T + dilation < T) {
          const A* later = da + (t + dilation) * 2 * C;
          for (int64_t c = 0; c < C; ++c) d[c] += float(later[c]);
        }
      }
      if (out) {
        A* to = out + t * (C + S);
        for (int64_t c = 0; c < C; ++c) to[c] = d[c];
        for (int64_t c = 0; c < S; ++c) to[C + c] = dskip[t * S + c];
      }
    }
  });
}
BOTH(umt_descend, (const Shape* z, const void* da, int64_t dilation, float* dx, const void* dskip,
                   void* out, int threads),
     (z, da, dilation, dx, dskip, out, threads))

// Cross-entropy of each row of logits (N, K) with its target, and the gradient of their mean, in
// the place of the logits.
template <class A>
void umt_cross_entropy_of(void* logits_, const int64_t* target, float* loss, int64_t rows,
                          int64_t classes, int threads) {
  share(rows, threads, [&](int64_t first, int64_t last) {
    std::vector<float> weights(classes);
    for (int64_t t = first; t < last; ++t) {
      A* logits = static_cast<A*>(logits_) + t * classes;
      float top = logits[0], total = 0;
      for (int64_t c = 0; c < classes; ++c) top = std::max(top, float(logits[c]));
      for (int64_t c = 0; c < classes; ++c) weights[c] = exponential(float(logits[c]) - top);
      for (int64_t c = 0; c < classes; ++c) total += weights[c];  // in order: part of the result
      loss[t] = std::log(total) + top - float(logits[target[t]]);
      const float scale = 1.f / (total * rows);
      const float hit = weights[target[t]] * scale - 1.f / rows;
      for (int64_t c = 0; c < classes; ++c) logits[c] = weights[c] * scale;
      logits[target[t]] = hit;
    }
  });
}
BOTH(umt_cross_entropy, (void* logits, const int64_t* target, float* loss, int64_t rows,
                         int64_t classes, int threads),
     (logits, target, loss, rows, classes, threads))
