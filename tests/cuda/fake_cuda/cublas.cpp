// cuBLAS: products of matrices that are stored column by column.

#include <algorithm>
#include <utility>
#include <vector>

#include "fake_cuda.h"

using namespace fake_cuda;

namespace {

const int CUBLAS_INVALID_VALUE = 7;

// The element of a matrix, or of its transpose where `operation` is not 0.
float at(const float *matrix, int operation, int leading, int row, int column) {
    return operation == 0 ? matrix[row + std::int64_t(column) * leading] : matrix[column + std::int64_t(row) * leading];
}

bool is_matrix(const float *matrix, int operation, int rows, int columns, int leading) {
    if (operation != 0) std::swap(rows, columns);
    if (leading < rows) return false;
    std::size_t end = std::size_t(columns - 1) * leading + rows;
    return is_allocated(reinterpret_cast<std::uintptr_t>(matrix), end * sizeof(float));
}

// c = alpha a b + beta c
int gemm(
    int operation_a, int operation_b, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
    const float *beta, float *c, int ldc
) {
    bool valid =
        is_matrix(a, operation_a, m, k, lda) && is_matrix(b, operation_b, k, n, ldb) && is_matrix(c, 0, m, n, ldc);
    if (m < 1 || n < 1 || k < 1 || !valid) return CUBLAS_INVALID_VALUE;
    // The inner loop is over m or over k, whichever is contiguous in `a`.
    std::vector<float> column(k), sums(m);
    for (int j = 0; j < n; j++) {
        for (int l = 0; l < k; l++) column[l] = at(b, operation_b, ldb, l, j);
        std::fill(sums.begin(), sums.end(), -0.0f); // cuBLAS does not specify the sign of a sum of zeros
        if (operation_a == 0) {
            for (int l = 0; l < k; l++) {
                const float *from = a + std::int64_t(l) * lda;
                for (int i = 0; i < m; i++) sums[i] += from[i] * column[l];
            }
        } else {
            for (int i = 0; i < m; i++) {
                const float *from = a + std::int64_t(i) * lda;
                for (int l = 0; l < k; l++) sums[i] += from[l] * column[l];
            }
        }
        for (int i = 0; i < m; i++) {
            float &to = c[i + std::int64_t(j) * ldc];
            to = *beta == 0 ? *alpha * sums[i] : *alpha * sums[i] + *beta * to;
        }
    }
    return SUCCESS;
}

} // namespace

extern "C" {

int cublasCreate_v2(void **handle) {
    ENTER_CUBLAS("cublasCreate_v2");
    *handle = &call_lock; // any address
    return SUCCESS;
}

int cublasDestroy_v2(void *) {
    ENTER("cublasDestroy_v2");
    return SUCCESS;
}

int cublasSetStream_v2(void *, void *) {
    ENTER("cublasSetStream_v2");
    return SUCCESS;
}

int cublasSgemm_v2(
    void *, int operation_a, int operation_b, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b,
    int ldb, const float *beta, float *c, int ldc
) {
    ENTER_CUBLAS("cublasSgemm_v2");
    return gemm(operation_a, operation_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

int cublasSgemmStridedBatched(
    void *, int operation_a, int operation_b, int m, int n, int k, const float *alpha, const float *a, int lda, long long stride_a,
    const float *b, int ldb, long long stride_b, const float *beta, float *c, int ldc, long long stride_c, int batch_count
) {
    ENTER_CUBLAS("cublasSgemmStridedBatched");
    for (int index = 0; index < batch_count; index++) {
        int status = gemm(
            operation_a, operation_b, m, n, k, alpha, a + index * stride_a, lda, b + index * stride_b, ldb, beta,
            c + index * stride_c, ldc
        );
        if (status != SUCCESS) return status;
    }
    return SUCCESS;
}

int cublasSgemmBatched(
    void *, int operation_a, int operation_b, int m, int n, int k, const float *alpha, const float *const *a, int lda,
    const float *const *b, int ldb, const float *beta, float *const *c, int ldc, int batch_count
) {
    ENTER_CUBLAS("cublasSgemmBatched");
    std::size_t bytes = batch_count * sizeof(float *);
    for (auto addresses : {(std::uintptr_t)a, (std::uintptr_t)b, (std::uintptr_t)c}) {
        if (!is_allocated(addresses, bytes)) return CUBLAS_INVALID_VALUE;
    }
    for (int index = 0; index < batch_count; index++) {
        int status = gemm(operation_a, operation_b, m, n, k, alpha, a[index], lda, b[index], ldb, beta, c[index], ldc);
        if (status != SUCCESS) return status;
    }
    return SUCCESS;
}
}
