// The operations that cuBLAS does not have. NVRTC compiles this file when a GPU is first used; no header is needed.
//
// Matrices are row-major. Kernels that reduce over a row have one block of BLOCK threads per row. Element-wise kernels
// have one thread per element, in a grid-stride loop where there are more elements than threads.

#define BLOCK 256
#define LOADS 8 // logits that a thread loads together
#define NEGATIVE_INFINITY __int_as_float(0xff800000)
#define NOT_A_NUMBER __int_as_float(0x7fc00000)

typedef unsigned int u32;
typedef unsigned long long u64;

// A grid-stride loop over n elements.
#define EACH(index, n) (u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x; index < (n); index += gridDim.x * (u64)blockDim.x)

// W_E[token] + W_pos[position]. One block per row.
// Shape: tokens, positions [rows], w_e [d_vocab, columns], w_pos [n_ctx, columns] -> y [rows, columns]
extern "C" __global__ void embed(
    const u32 *tokens, const u32 *positions, const float *w_e, const float *w_pos, float *y, u32 columns
) {
    const float *token = w_e + (u64)tokens[blockIdx.x] * columns;
    const float *position = w_pos + (u64)positions[blockIdx.x] * columns;
    float *row = y + (u64)blockIdx.x * columns;
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) row[column] = token[column] + position[column];
}

// The sum of x over the threads of the block, returned to each. The order of additions is fixed.
__device__ float block_sum(float x) {
    __shared__ float sums[BLOCK];
    __syncthreads(); // all threads have read the result of the previous call
    sums[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// The maximum of x over the threads of the block, returned to each.
__device__ float block_max(float x) {
    __shared__ float maxima[BLOCK];
    __syncthreads();
    maxima[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) maxima[threadIdx.x] = fmaxf(maxima[threadIdx.x], maxima[threadIdx.x + half]);
        __syncthreads();
    }
    return maxima[0];
}

// (x - mean) / sqrt(variance + eps), then times w plus b if there are weights. One block per row.
// Shape: x [rows, columns], w, b [columns] -> y [rows, columns]
extern "C" __global__ void layer_norm(
    const float *x, const float *w, const float *b, float *y, u32 columns, float eps, u32 has_weights
) {
    const float *from = x + (u64)blockIdx.x * columns;
    float *to = y + (u64)blockIdx.x * columns;
    float sum = 0;
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) sum += from[column];
    float mean = block_sum(sum) / columns;
    float squares = 0;
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) {
        float centered = from[column] - mean;
        squares += centered * centered;
    }
    float scale = 1 / sqrtf(block_sum(squares) / columns + eps);
    for (u32 column = threadIdx.x; column < columns; column += BLOCK) {
        float normalized = (from[column] - mean) * scale;
        to[column] = has_weights ? normalized * w[column] + b[column] : normalized;
    }
}

// x = epilogue(x + b) in place, for a batch of matrices with a bias each. One block per BLOCK columns of a row. The
// numbers of the functions are those of `Epilogue` in kernels.rs.
// Shape: x [count, rows, columns], b [count, columns]
extern "C" __global__ void add_bias(float *x, const float *b, u32 rows, u32 columns, u32 epilogue) {
    u32 blocks_per_row = (columns + BLOCK - 1) / BLOCK;
    u32 row = blockIdx.x / blocks_per_row, column = blockIdx.x % blocks_per_row * BLOCK + threadIdx.x;
    if (column >= columns) return;
    float *to = x + (u64)row * columns + column;
    float y = *to + b[(u64)(row / rows) * columns + column];
    switch (epilogue) {
        case 1: // GELU, tanh approximation
            y = 0.5f * y * (1 + tanhf(0.7978845608028654f * (y + 0.044715f * y * y * y)));
            break;
        case 2: // GELU, exact
            y = 0.5f * y * (1 + erff(y * 0.7071067811865476f));
            break;
        case 3: // ReLU
            y = fmaxf(y, 0.0f);
            break;
        case 4: // SiLU
            y = y / (1 + expf(-y));
            break;
        case 5:
            y = tanhf(y);
            break;
    }
    *to = y;
}

// y = a + b.
// Shape: all the same, of n elements
extern "C" __global__ void add(const float *a, const float *b, float *y, u64 n) {
    for EACH(index, n) y[index] = a[index] + b[index];
}

// The element-wise products of pairs of rows.
// Shape: table [rows, columns], pairs [count, 2] -> y [count, columns], of n elements
extern "C" __global__ void multiply_rows(const float *table, const u32 *pairs, float *y, u32 columns, u32 n) {
    for EACH(index, n) {
        u32 pair = (u32)index / columns, column = (u32)index % columns;
        y[index] = table[pairs[2 * (u64)pair] * (u64)columns + column] * table[pairs[2 * (u64)pair + 1] * (u64)columns + column];
    }
}

// The first row of each prompt in the batch.
#define MAX_PROMPTS 256
struct FirstRows {
    u32 of_prompt[MAX_PROMPTS];
};

// The addresses of the heads of some prompts, for batched products of cuBLAS: a list each for q, k, v, pattern and z.
// Shape: q, k, v, z [rows, n_heads d_head], pattern [prompts, n_heads, pos, pos] -> addresses [5, n],
// n = prompts * n_heads
extern "C" __global__ void list_head_addresses(
    FirstRows first_rows, float *q, float *k, float *v, float *pattern, float *z, float **addresses, u32 n_heads, u32 d_head,
    u32 pos, u32 n
) {
    for EACH(index, n) {
        u64 first = ((u64)first_rows.of_prompt[index / n_heads] * n_heads + index % n_heads) * d_head;
        addresses[index] = q + first;
        addresses[n + index] = k + first;
        addresses[2 * (u64)n + index] = v + first;
        addresses[3 * (u64)n + index] = pattern + index * pos * pos;
        addresses[4 * (u64)n + index] = z + first;
    }
}

// Softmax in place over the keys up to the query's own position; 0 for later keys. One block per row. Where all scores of
// a row are -infinity, the result is 0 if `zeros` is true, and NaN otherwise.
__device__ void softmax_row(float *scores, u32 pos, bool zeros) {
    float *row = scores + (u64)blockIdx.x * pos;
    u32 keys = blockIdx.x % pos + 1;
    float maximum = NEGATIVE_INFINITY;
    for (u32 key = threadIdx.x; key < keys; key += BLOCK) maximum = fmaxf(maximum, row[key]);
    maximum = block_max(maximum);
    if (zeros && maximum == NEGATIVE_INFINITY) keys = 0;
    float sum = 0;
    for (u32 key = threadIdx.x; key < keys; key += BLOCK) {
        float exponential = expf(row[key] - maximum);
        row[key] = exponential;
        sum += exponential;
    }
    float total = block_sum(sum);
    for (u32 key = threadIdx.x; key < pos; key += BLOCK) row[key] = key < keys ? row[key] / total : 0;
}

// Shape: scores [matrices, query_pos, key_pos]
extern "C" __global__ void causal_softmax(float *scores, u32 pos) {
    softmax_row(scores, pos, false);
}

// The softmax of scores that were edited.
// Shape: scores [matrices, query_pos, key_pos]
extern "C" __global__ void edited_causal_softmax(float *scores, u32 pos) {
    softmax_row(scores, pos, true);
}

// Changes rows in place, in the order of each row's changes. One block per changed row. `edits` has the index of each
// changed row, the number of changes before each and in all, five words for each change, then columns and values
// (`words` in edits.rs). Where pos is not 0, rows are those of scores or patterns, and keys after the query stay.
// Shape: x [rows, columns]
extern "C" __global__ void edit_rows(float *x, const u32 *edits, u32 columns, u32 pos) {
    u32 index = edits[blockIdx.x];
    float *row = x + (u64)index * columns;
    u32 end = pos > 0 ? index % pos + 1 : columns;
    const u32 *first_change = edits + gridDim.x + blockIdx.x;
    for (u32 number = first_change[0]; number < first_change[1]; number++) {
        const u32 *change = edits + 2 * (u64)gridDim.x + 1 + 5 * (u64)number;
        u32 how = change[0], columns_at = change[1], n_columns = change[2], values_at = change[3], step = change[4];
        for (u32 item = threadIdx.x; item < n_columns; item += BLOCK) {
            u32 column = edits[(u64)columns_at + item];
            if (column >= end) continue;
            float value = __int_as_float(edits[(u64)values_at + (u64)item * step]), before = row[column];
            switch (how) { // the numbers are those of `Change` in edits.rs
                case 0: row[column] = value; break;
                case 1: row[column] = before + value; break;
                case 2: row[column] = isfinite(before) ? before * value : before; break;
            }
        }
        __syncthreads(); // the next change may read what another thread wrote
    }
}

// A logit and its token as one integer that is larger for better tokens. Among equal logits the lowest token id is
// best; NaN is the worst logit.
__device__ u64 rank(float logit, u32 token) {
    u32 bits = __float_as_int(logit + 0.0f); // +0 for -0, which it equals
    u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)(isnan(logit) ? 0 : ordered) << 32 | ~token;
}

__device__ float logit_of(u64 rank) {
    u32 ordered = rank >> 32;
    if (ordered == 0) return NOT_A_NUMBER;
    return __int_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// The best two of two pairs of ranks, each pair in descending order.
__device__ void merge_pairs(u64 &first, u64 &second, u64 other_first, u64 other_second) {
    u64 loser = first < other_first ? first : other_first;
    u64 runner_up = first < other_first ? other_second : second;
    first = first < other_first ? other_first : first;
    second = loser < runner_up ? runner_up : loser;
}

// The best two ranks of all threads of the block, returned to each.
__device__ void block_best_two(u64 &first, u64 &second) {
    __shared__ u64 firsts[BLOCK], seconds[BLOCK];
    __syncthreads(); // all threads have read the result of the previous call
    firsts[threadIdx.x] = first;
    seconds[threadIdx.x] = second;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            merge_pairs(firsts[threadIdx.x], seconds[threadIdx.x], firsts[threadIdx.x + half], seconds[threadIdx.x + half]);
        }
        __syncthreads();
    }
    first = firsts[0];
    second = seconds[0];
}

// The best two ranks that a thread has found so far.
struct BestTwo {
    u64 first, second;
    float threshold; // no later token with a logit up to this is among the best two; NaN while any may be
};

// Adds a token to the best two if it is among them and its rank is less than `below`.
__device__ void push(BestTwo &best, float logit, u32 token, u64 below) {
    if (logit <= best.threshold) return; // nearly all tokens
    u64 own = rank(logit, token);
    if (own >= below || own <= best.second) return;
    merge_pairs(best.first, best.second, own, 0);
    best.threshold = fmaxf(best.threshold, logit_of(best.second));
}

// push for LOADS tokens, BLOCK apart. All logits are loaded before the first is compared, so that the loads overlap.
__device__ void push_several(BestTwo &best, const float *row, const float *b, u32 token, u64 below) {
    row += token;
    b += token;
    float logits[LOADS];
    for (u32 index = 0; index < LOADS; index++) logits[index] = row[index * BLOCK] + b[index * BLOCK];
    for (u32 index = 0; index < LOADS; index++) push(best, logits[index], token + index * BLOCK, below);
}

// The n_ranked best tokens of each row of product + b, best first, n_ranked <= d_vocab. One block per row, which reads
// the row once for every two tokens. The result goes after that of `rows_before` rows.
// Shape: product [rows, d_vocab], b [d_vocab] -> tokens, logits [rows_before + rows, n_ranked]
extern "C" __global__ void top_tokens(
    const float *product, const float *b, u32 *tokens, float *logits, u64 rows_before, u32 d_vocab, u32 n_ranked
) {
    const float *row = product + (u64)blockIdx.x * d_vocab;
    u64 below = 0xffffffffffffffffull; // more than the rank of any token
    for (u32 found = 0; found < n_ranked; found += 2) {
        BestTwo best = {0, 0, NOT_A_NUMBER}; // rank 0 is less than that of any token: ids are below 2^32 - 1
        u32 token = threadIdx.x;
        if (LOADS * BLOCK <= d_vocab) {
            push_several(best, row, b, token, below);
            token += LOADS * BLOCK;
            // The second best of all threads bounds the result. Later tokens lose ties, because their ids are higher.
            u64 first = best.first, second = best.second;
            block_best_two(first, second);
            best.threshold = logit_of(second);
        }
        for (; token + (LOADS - 1) * BLOCK < d_vocab; token += LOADS * BLOCK) push_several(best, row, b, token, below);
        for (; token < d_vocab; token += BLOCK) push(best, row[token] + b[token], token, below);
        block_best_two(best.first, best.second);
        if (threadIdx.x < 2 && found + threadIdx.x < n_ranked) {
            u64 own = threadIdx.x == 0 ? best.first : best.second;
            u64 to = (rows_before + blockIdx.x) * n_ranked + found + threadIdx.x;
            tokens[to] = ~(u32)own;
            logits[to] = logit_of(own);
        }
        below = best.second;
    }
}
