// The agents' first layer and GRU over whole episodes, and their gradients. recurrence.py compiles and calls it.
//
//     x_t = ReLU(V o_t + column of the last action + bias of the agent)
//     r, z = σ(W x_t + U h_{t-1} + b),   q = U_c h_{t-1} + b_q,   c = tanh(W_c x_t + b_c + r q)
//     h_t = c + z (h_{t-1} - c)
//
// A few episodes at a time go through all steps, so that what a step makes is still in the cache where it is used.
// They come by their length: those that go on are always the first ones, and nothing is computed past an end.
//
// Axes: N agents, O observation, A actions, H hidden, a multiple of COLS. Matrices lie row by row. A row of a step is
// one agent of one episode; there are M of them. Gates are in the order r, z, c.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12;  // ROWS · COLS sums fill the registers
#else
constexpr int LANES = 8, ROWS = 6;
#endif
constexpr int COLS = 2 * LANES;
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
using Floats = std::vector<float>;

static inline Vec& at(float* x) { return *(Vec*)x; }
static inline const Vec& at(const float* x) { return *(const Vec*)x; }

// ------------------------------------------------------------------ products

// R rows and COLS columns of c = a b, or of c += a b. a_row, a_k: from a row of a to the next, from a column to the next.
template <int R, bool ADD>
static void tile(int64_t k, const float* a, int64_t a_row, int64_t a_k, const float* b, float* c, int64_t width) {
    Vec left[R], right[R];
#pragma GCC unroll 12
    for (int i = 0; i < R; i++) left[i] = right[i] = Vec{};
    const float *a0 = a, *a4 = a + 4 * a_row, *a8 = a + 8 * a_row;  // there are no registers for 12 addresses
    for (int64_t p = 0; p < k; p++, a0 += a_k, a4 += a_k, a8 += a_k, b += width) {
        const Vec b_left = at(b), b_right = at(b + LANES);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++) {
            const float factor = (i < 4 ? a0 : i < 8 ? a4 : a8)[i % 4 * a_row];
            left[i] += factor * b_left;
            right[i] += factor * b_right;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < R; i++, c += width) {
        at(c) = ADD ? at(c) + left[i] : left[i];
        at(c + LANES) = ADD ? at(c + LANES) + right[i] : right[i];
    }
}

template <bool ADD, int R = ROWS>
static void tile_of(int64_t rows, int64_t k, const float* a, int64_t a_row, int64_t a_k, const float* b, float* c,
                    int64_t width) {
    if constexpr (R > 0) {
        if (rows == R) return tile<R, ADD>(k, a, a_row, a_k, b, c, width);
        tile_of<ADD, R - 1>(rows, k, a, a_row, a_k, b, c, width);
    }
}

template <bool ADD>
static void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_k, const float* b,
                    float* c) {
    for (int64_t j = 0; j < n; j += COLS)
        for (int64_t i = 0; i < m; i += ROWS)
            tile_of<ADD>(std::min<int64_t>(ROWS, m - i), k, a + i * a_row, a_row, a_k, b + j, c + i * n + j, n);
}

// c [m, n] = a [m, k] b [k, n]
static void multiply(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c) {
    product<false>(m, n, k, a, k, 1, b, c);
}

// c [m, n] += a [m, k] b [k, n]
static void add_product(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c) {
    product<true>(m, n, k, a, k, 1, b, c);
}

// c [m, n] += aᵀ b of a [k, m] and b [k, n]: the gradient of a weight
static void add_outer(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c) {
    product<true>(m, n, k, a, 1, m, b, c);
}

// ------------------------------------------------------------------ gates

// e^x - 1, exact to the last bits also where x is small.
static inline Vec exp_less_one(Vec x) {
    x = x > 87.0f ? Vec{} + 87.0f : x;
    x = x < -87.0f ? Vec{} - 87.0f : x;
    const Vec k = (x * 1.44269504088896f + 12582912.0f) - 12582912.0f;  // rounded: from 1.5 · 2^23 on floats are whole
    const Vec r = x - k * 0.693359375f + k * 2.12194440e-4f;            // x = k ln 2 + r
    Vec p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r;  // e^r - 1
    const Vec power = (Vec)(((Bits)__builtin_convertvector(k, Ints) + 127) << 23);  // 2^k
    return power * p + (power - 1.0f);
}

static inline Vec sigmoid(Vec x) { return 1.0f / (2.0f + exp_less_one(-x)); }

static inline Vec tanh_of(Vec x) {
    const Vec e = exp_less_one(-2.0f * x);
    return -e / (2.0f + e);
}

// h [M, H] and gates [M, 4 H] (r, z, c, q) from a = W x and b = U h_{t-1} [M, 3 H] and biases [4 H] (of r, z, c, q).
static void gates_forward(int64_t m, int64_t H, const float* a, const float* b, const float* bias, const float* before,
                          float* h, float* gates) {
    for (int64_t i = 0; i < m; i++, a += 3 * H, b += 3 * H, before += H, h += H, gates += 4 * H)
        for (int64_t j = 0; j < H; j += LANES) {
            const Vec r = sigmoid(at(a + j) + at(b + j) + at(bias + j));
            const Vec z = sigmoid(at(a + H + j) + at(b + H + j) + at(bias + H + j));
            const Vec q = at(b + 2 * H + j) + at(bias + 3 * H + j);
            const Vec c = tanh_of(at(a + 2 * H + j) + at(bias + 2 * H + j) + r * q);
            at(h + j) = c + z * (at(before + j) - c);
            at(gates + j) = r, at(gates + H + j) = z, at(gates + 2 * H + j) = c, at(gates + 3 * H + j) = q;
        }
}

// The gradients of a, b [M, 3 H] and, added, of biases [4 H]. d_h [M, H] comes with what later steps give to h, and
// goes with what h_{t-1} gets through z; d_out: rows [H] of what the results give to h.
static void gates_backward(int64_t m, int64_t H, const float* gates, const float* before, const float* const* d_out,
                           float* d_h, float* d_a, float* d_b, float* d_bias) {
    for (int64_t j = 0; j < H; j += LANES) {
        Vec sum_r{}, sum_z{}, sum_c{}, sum_q{};
        for (int64_t i = 0; i < m; i++) {
            const float* g = gates + i * 4 * H + j;
            const Vec r = at(g), z = at(g + H), c = at(g + 2 * H), q = at(g + 3 * H);
            const Vec d = at(d_h + i * H + j) + at(d_out[i] + j);
            const Vec d_c = d * (1 - z) * (1 - c * c), d_z = d * (at(before + i * H + j) - c) * z * (1 - z);
            const Vec d_q = d_c * r, d_r = d_c * q * r * (1 - r);
            float *ai = d_a + i * 3 * H + j, *bi = d_b + i * 3 * H + j;
            at(ai) = at(bi) = d_r, at(ai + H) = at(bi + H) = d_z, at(ai + 2 * H) = d_c, at(bi + 2 * H) = d_q;
            at(d_h + i * H + j) = d * z;
            sum_r += d_r, sum_z += d_z, sum_c += d_c, sum_q += d_q;
        }
        at(d_bias + j) += sum_r, at(d_bias + H + j) += sum_z;
        at(d_bias + 2 * H + j) += sum_c, at(d_bias + 3 * H + j) += sum_q;
    }
}

// ------------------------------------------------------------------ episodes

struct Episodes {
    int64_t count, steps, agents, obs, actions, hidden;
    int64_t obs_episode, obs_step, action_episode, action_step;  // numbers from one to the next
    const int64_t* order;                                        // [count] the longest first
    const int64_t* going_on;                                     // [steps] how many have a step t
    const int64_t* place;  // [count, steps] which of the results a step's hidden states [N, H] are, or -1
    const float* observations;
    const int64_t* last_actions;  // 0 … A
    int64_t at_once, threads;

    const int64_t* last_action(int64_t i, int64_t t) const {
        return last_actions + order[i] * action_episode + t * action_step;
    }
    int64_t result(int64_t i, int64_t t) const { return place[order[i] * steps + t]; }
    void observe(int64_t first, int64_t n, int64_t t, float* to) const {
        for (int64_t i = first; i < first + n; i++, to += agents * obs)
            std::memcpy(to, observations + order[i] * obs_episode + t * obs_step, sizeof(float) * agents * obs);
    }
};

// Each thread does every so manieth group of episodes, so timing changes no sum. work(thread, first of a group).
template <class Worker>
static void share(const Episodes& e, Worker worker) {
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < e.threads; thread++) try {
            others.emplace_back(worker, thread);
        } catch (const std::system_error&) {  // there may be no more of them
            worker(thread);
        }
    worker(0);
    for (auto& other : others) other.join();
}

// out [results, N, H]. w_obs [O, H], columns [A + 1, H], own [N, H], w_ih and w_hh [H, 3 H], biases [4 H] of r, z, c, q.
// x, h [all rows, H] and gates [all rows, 4 H]: kept for `backward`, step by step; null: nothing is.
extern "C" void forward(const Episodes* episodes, const float* w_obs, const float* columns, const float* own,
                        const float* w_ih, const float* w_hh, const float* bias, float* out, float* all_x,
                        float* all_h, float* all_gates) {
    const Episodes& e = *episodes;
    const int64_t N = e.agents, H = e.hidden, most = e.at_once * N;
    share(e, [&](int64_t thread) {
        Floats o(most * e.obs), a(most * 3 * H), b(most * 3 * H), zeros(most * H), scratch(all_x ? 0 : most * 7 * H);
        for (int64_t first = thread * e.at_once; first < e.count; first += e.threads * e.at_once) {
            const float* before = zeros.data();
            int64_t row = first * N;
            for (int64_t t = 0; t < e.steps && e.going_on[t] > first; row += e.going_on[t++] * N) {
                const int64_t n = std::min(e.at_once, e.going_on[t] - first), m = n * N;
                float* x = all_x ? all_x + row * H : &scratch[0];
                float* h = all_x ? all_h + row * H : &scratch[most * H * (1 + t % 2)];
                float* gates = all_x ? all_gates + row * 4 * H : &scratch[most * H * 3];
                e.observe(first, n, t, o.data());
                multiply(m, H, e.obs, o.data(), w_obs, x);
                for (int64_t i = 0; i < m; i++) {
                    const float *column = columns + e.last_action(first + i / N, t)[i % N] * H, *bias = own + i % N * H;
                    for (int64_t j = 0; j < H; j += LANES) {
                        const Vec sum = at(x + i * H + j) + at(column + j) + at(bias + j);
                        at(x + i * H + j) = sum < 0.0f ? Vec{} : sum;  // what is not a number stays so
                    }
                }
                multiply(m, 3 * H, H, x, w_ih, a.data());
                multiply(m, 3 * H, H, before, w_hh, b.data());
                gates_forward(m, H, a.data(), b.data(), bias, before, h, gates);
                for (int64_t i = 0; i < n; i++)
                    if (e.result(first + i, t) >= 0)
                        std::memcpy(out + e.result(first + i, t) * N * H, h + i * N * H, sizeof(float) * N * H);
                before = h;
            }
        }
    });
}

// gradients: for each thread those of w_obs [O, H], columns, own, w_ih and w_hh [3 H, H] and biases, one behind the
// other, to which is added. w_ih, w_hh: [3 H, H], as torch has them. d_out [results, N, H].
extern "C" void backward(const Episodes* episodes, const float* w_ih, const float* w_hh, const float* d_out,
                         const float* all_x, const float* all_h, const float* all_gates, float* gradients) {
    const Episodes& e = *episodes;
    const int64_t N = e.agents, O = e.obs, H = e.hidden, most = e.at_once * N;
    std::vector<int64_t> begin(e.steps);  // rows of the steps before
    for (int64_t t = 1; t < e.steps; t++) begin[t] = begin[t - 1] + e.going_on[t - 1] * N;
    share(e, [&](int64_t thread) {
        float* d_w_obs = gradients + thread * H * (O + e.actions + 1 + N + 6 * H + 4);
        float *d_columns = d_w_obs + O * H, *d_own = d_columns + (e.actions + 1) * H;
        float *d_w_ih = d_own + N * H, *d_w_hh = d_w_ih + 3 * H * H, *d_bias = d_w_hh + 3 * H * H;
        Floats o(most * O), d_a(most * 3 * H), d_b(most * 3 * H), d_x(most * H), d_h(most * H), zeros(most * H);
        std::vector<const float*> wanted(most);
        for (int64_t first = thread * e.at_once; first < e.count; first += e.threads * e.at_once) {
            std::fill(d_h.begin(), d_h.end(), 0.0f);
            for (int64_t t = e.steps - 1; t >= 0; t--) {
                if (e.going_on[t] <= first) continue;
                const int64_t n = std::min(e.at_once, e.going_on[t] - first), m = n * N, row = begin[t] + first * N;
                const float *x = all_x + row * H, *gates = all_gates + row * 4 * H;
                const float* before = t ? all_h + (begin[t - 1] + first * N) * H : zeros.data();
                for (int64_t i = 0; i < m; i++) {
                    const int64_t result = e.result(first + i / N, t);
                    wanted[i] = result < 0 ? zeros.data() : d_out + (result * N + i % N) * H;
                }
                gates_backward(m, H, gates, before, wanted.data(), d_h.data(), d_a.data(), d_b.data(), d_bias);
                if (t) {
                    add_product(m, H, 3 * H, d_b.data(), w_hh, d_h.data());
                    add_outer(3 * H, H, m, d_b.data(), before, d_w_hh);
                }
                add_outer(3 * H, H, m, d_a.data(), x, d_w_ih);
                multiply(m, H, 3 * H, d_a.data(), w_ih, d_x.data());
                for (int64_t i = 0; i < m; i++) {
                    float *d = &d_x[i * H], *d_bias_i = d_own + i % N * H;
                    float* d_column = d_columns + e.last_action(first + i / N, t)[i % N] * H;
                    for (int64_t j = 0; j < H; j += LANES) {
                        const Vec d_j = at(x + i * H + j) > 0.0f ? at(d + j) : Vec{};
                        at(d + j) = d_j, at(d_column + j) += d_j, at(d_bias_i + j) += d_j;
                    }
                }
                e.observe(first, n, t, o.data());
                add_outer(O, H, m, o.data(), d_x.data(), d_w_obs);
            }
        }
    });
}
