// The operations that cuBLAS does not have. NVRTC compiles this file when a card is first used; no header is needed.
//
// Matrices lie row by row. A kernel that sums over a row has a block of BLOCK threads for each; the others have a thread
// for each number, and go on to the next if there are more numbers than threads.

#define BLOCK 256
#define SEVERAL 8
#define NEGATIVE_INFINITY __int_as_float(0xff800000)

typedef unsigned int u32;
typedef unsigned long long u64;

#define EACH(index, n) (u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x; index < (n); index += gridDim.x * (u64)blockDim.x)

// W_E[token] + W_pos[position]: a block for each row.
extern "C" __global__ void embed(
    const u32 *tokens, const u32 *positions, const float *w_e, const float *w_pos, float *y, u32 columns
) {
    const float *token = w_e + (u64)tokens[blockIdx.x] * columns;
    const float *position = w_pos + (u64)positions[blockIdx.x] * columns;
    float *row = y + (u64)blockIdx.x * columns;
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) row[column] = token[column] + position[column];
}

// The sum of every thread's number, for all of them. The order depends on nothing.
__device__ float sum_of_block(float x) {
    __shared__ float sums[BLOCK];
    __syncthreads(); // what was summed before has been read
    sums[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

__device__ float largest_of_block(float x) {
    __shared__ float largest[BLOCK];
    __syncthreads();
    largest[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) largest[threadIdx.x] = fmaxf(largest[threadIdx.x], largest[threadIdx.x + half]);
        __syncthreads();
    }
    return largest[0];
}

// (x - mean) / sqrt(variance + eps), and where there are weights, times w, plus b: a block for each row.
extern "C" __global__ void layer_norm(
    const float *x, const float *w, const float *b, float *y, u32 columns, float eps, u32 has_weights
) {
    const float *from = x + (u64)blockIdx.x * columns;
    float *to = y + (u64)blockIdx.x * columns;
    float sum = 0;
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) sum += from[column];
    float mean = sum_of_block(sum) / columns;
    float squares = 0;
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) {
        float off = from[column] - mean;
        squares += off * off;
    }
    float scale = 1 / sqrtf(sum_of_block(squares) / columns + eps);
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) {
        float normalized = (from[column] - mean) * scale;
        to[column] = has_weights ? normalized * w[column] + b[column] : normalized;
    }
}

// x = act_fn(x + b) for matrices of so many rows, which lie below each other, and a row b for each: a block for each BLOCK
// columns of each row. The numbers of the functions are those of `Function` in kernels.rs.
extern "C" __global__ void add_bias(float *x, const float *b, u32 rows, u32 columns, u32 act_fn) {
    u32 blocks_of_row = (columns + BLOCK - 1) / BLOCK;
    u32 row = blockIdx.x / blocks_of_row, column = blockIdx.x % blocks_of_row * BLOCK + threadIdx.x;
    if (column >= columns) return;
    float *to = x + (u64)row * columns + column;
    float y = *to + b[(u64)(row / rows) * columns + column];
    switch (act_fn) {
        case 1: y = 0.5f * y * (1 + tanhf(0.7978845608028654f * (y + 0.044715f * y * y * y))); break;
        case 2: y = 0.5f * y * (1 + erff(y * 0.7071067811865476f)); break;
        case 3: y = fmaxf(y, 0.0f); break;
        case 4: y = y / (1 + expf(-y)); break;
        case 5: y = tanhf(y); break;
    }
    *to = y;
}

extern "C" __global__ void add(const float *a, const float *b, float *y, u64 n) {
    for EACH(index, n) y[index] = a[index] + b[index];
}

// y = one row of a table times another, for pairs of rows: a thread for each of n numbers.
extern "C" __global__ void multiply_rows(const float *table, const u32 *pairs, float *y, u32 columns, u32 n) {
    for EACH(index, n) {
        u32 pair = (u32)index / columns, column = (u32)index % columns;
        y[index] = table[pairs[2 * (u64)pair] * (u64)columns + column] * table[pairs[2 * (u64)pair + 1] * (u64)columns + column];
    }
}

// Of so many prompts, the first row in a batch.
#define MOST_PROMPTS 256
struct FirstRows {
    u32 of[MOST_PROMPTS];
};

// Where each head of each of some prompts begins, as cuBLAS wants to know it: five lists of n addresses, in q, k and v
// [rows, n_heads d_head], in pattern [prompts, n_heads, pos, pos] and in z, which is as q.
extern "C" __global__ void list_heads(
    FirstRows first_rows, float *q, float *k, float *v, float *pattern, float *z, float **lists, u32 n_heads, u32 d_head, u32 pos,
    u32 n
) {
    for EACH(index, n) {
        u64 first = ((u64)first_rows.of[index / n_heads] * n_heads + index % n_heads) * d_head;
        lists[index] = q + first;
        lists[n + index] = k + first;
        lists[2 * (u64)n + index] = v + first;
        lists[3 * (u64)n + index] = pattern + index * pos * pos;
        lists[4 * (u64)n + index] = z + first;
    }
}

// The softmax of each row of [matrices, pos, pos] over the keys up to the query's own position, and 0 behind them: a block
// for each row.
extern "C" __global__ void causal_softmax(float *scores, u32 pos) {
    float *row = scores + (u64)blockIdx.x * pos;
    u32 keys = blockIdx.x % pos + 1;
    float largest = NEGATIVE_INFINITY;
    for (u32 key = threadIdx.x; key < keys; key += BLOCK) largest = fmaxf(largest, row[key]);
    largest = largest_of_block(largest);
    float sum = 0;
    for (u32 key = threadIdx.x; key < keys; key += BLOCK) {
        float share = expf(row[key] - largest);
        row[key] = share;
        sum += share;
    }
    float total = sum_of_block(sum);
    for (u32 key = threadIdx.x; key < pos; key += BLOCK) row[key] = key < keys ? row[key] / total : 0;
}

// A logit and its token as one number: the larger, the earlier in the order of the best. Not a number comes last; of
// equals, the lowest token id comes first.
__device__ u64 rank(float logit, u32 token) {
    u32 bits = __float_as_int(logit + 0.0f); // no negative zero
    u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)(isnan(logit) ? 0 : ordered) << 32 | ~token;
}

__device__ float logit_of(u64 rank) {
    u32 ordered = rank >> 32;
    if (ordered == 0) return __int_as_float(0x7fc00000);
    return __int_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// Keeps the two largest of two and two, each pair in order.
__device__ void keep_two(u64 &first, u64 &second, u64 other_first, u64 other_second) {
    u64 loser = first < other_first ? first : other_first;
    u64 runner_up = first < other_first ? other_second : second;
    first = first < other_first ? other_first : first;
    second = loser < runner_up ? runner_up : loser;
}

// The best two of every thread's two, for all of them.
__device__ void two_of_block(u64 &first, u64 &second) {
    __shared__ u64 firsts[BLOCK], seconds[BLOCK];
    __syncthreads(); // what was compared before has been read
    firsts[threadIdx.x] = first;
    seconds[threadIdx.x] = second;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            keep_two(firsts[threadIdx.x], seconds[threadIdx.x], firsts[threadIdx.x + half], seconds[threadIdx.x + half]);
        }
        __syncthreads();
    }
    first = firsts[0];
    second = seconds[0];
}

// The best two tokens that a thread has seen.
struct Two {
    u64 first, second;
    float worst; // no later token with this logit or less is among the best two; not a number where any may be
};

__device__ void see(Two &best, float logit, u32 token, u64 below) {
    if (logit <= best.worst) return; // so it is with nearly all
    u64 own = rank(logit, token);
    if (own >= below || own <= best.second) return;
    keep_two(best.first, best.second, own, 0);
    best.worst = fmaxf(best.worst, logit_of(best.second));
}

// Tokens that are BLOCK apart. Their logits are on their way from memory together.
__device__ void see_several(Two &best, const float *row, const float *b, u32 token, u64 below) {
    row += token;
    b += token;
    float logits[SEVERAL];
    for (u32 index = 0; index < SEVERAL; index++) logits[index] = row[index * BLOCK] + b[index * BLOCK];
    for (u32 index = 0; index < SEVERAL; index++) see(best, logits[index], token + index * BLOCK, below);
}

// The `wanted` best tokens of each row of product + b, best first: a block for each row, which goes through the row once
// for each two of them. `wanted` is at most d_vocab. They are written behind those of the `above` rows before.
extern "C" __global__ void top_tokens(
    const float *product, const float *b, u32 *tokens, float *logits, u64 above, u32 d_vocab, u32 wanted
) {
    const float *row = product + (u64)blockIdx.x * d_vocab;
    u64 below = 0xffffffffffffffffull; // no token has this rank
    for (u32 found = 0; found < wanted; found += 2) {
        Two best = {0, 0, __int_as_float(0x7fc00000)}; // nor rank 0, below 2^32 - 1 tokens
        u32 token = threadIdx.x;
        if (SEVERAL * BLOCK <= d_vocab) {
            see_several(best, row, b, token, below);
            token += SEVERAL * BLOCK;
            u64 first = best.first, second = best.second;
            two_of_block(first, second);
            best.worst = logit_of(second); // all further ids are higher than all these
        }
        for (; token + (SEVERAL - 1) * BLOCK < d_vocab; token += SEVERAL * BLOCK) see_several(best, row, b, token, below);
        for (; token < d_vocab; token += BLOCK) see(best, row[token] + b[token], token, below);
        two_of_block(best.first, best.second);
        if (threadIdx.x < 2 && found + threadIdx.x < wanted) {
            u64 own = threadIdx.x == 0 ? best.first : best.second;
            u64 to = (above + blockIdx.x) * wanted + found + threadIdx.x;
            tokens[to] = ~(u32)own;
            logits[to] = logit_of(own);
        }
        below = best.second;
    }
}
