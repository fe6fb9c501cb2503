/* Leading singular triplets of small dense matrices in host memory, in one call.
 *
 * Golub-Kahan Lanczos with full reorthogonalization, residuals from products, and the check for
 * missed singular values, or LAPACK's SVD for very small matrices. What this cannot settle it
 * reports by a status, and the caller computes the matrix in the general way.
 *
 * BLAS and LAPACK come by address from scipy.linalg.cython_blas and cython_lapack, so that the
 * module links to nothing. The build defines Py_LIMITED_API: one binary serves Python 3.11 and
 * later. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Status of a matrix; small.py has the same list. All but CONVERGED are left to the general way. */
enum { CONVERGED, FLAT, NOT_CONVERGED, MISSED, DEFICIENT, OUT_OF_RANGE, FAILED, NO_MEMORY };
/* Certificate: see Completeness in trsvd/_solve/result.py. */
enum { UNCHECKED, PROBABLE, RANDOM_START, NORM, EXACT };
/* Numbers about a matrix, in this order. */
enum { STATUS, STEPS, ESTIMATE, CHECK_STEPS, CERTIFICATE, ENERGY, STARTED, COUNT };
/* What became of start vectors. */
enum { NONE, ACCEPTED, REFUSED };

/* Smallest part of a singular vector that a random vector has, with the failure probability of
 * trsvd/_plan/certificate.py. */
#define LEAST_PART 1e-3
/* A spectrum is flat if the mean square of s_{k+1}, ..., s_n exceeds this share of s_k^2, see
 * trsvd/_plan/cost.py. It is estimated from at least so many vectors. Up to so many columns a
 * factorization is made here then. */
#define FLATNESS 0.22
#define FEWEST 13
#define DIRECT_UP_TO 128

typedef struct {
    int k;            /* triplets that must meet the tolerance, or the gap */
    int want;         /* triplets to return: k, or a few more */
    int most;         /* Lanczos steps at most; 0: Gram matrix or SVD */
    int flat_gives_way; /* for a flat spectrum a factorization is faster */
    int by_gap;       /* tol is the relative gap of s_1 + ... + s_k, not a residual */
    int left_is_long; /* the user's left vectors are those of the long side */
    int check;        /* steps of the check for missed values; 0: a twentieth of the products */
    int check_most;   /* and at most so many; 0: no check */
    int check_loose;  /* with a loose tolerance, steps until the largest value is known to it */
    double tol;
    double missed_gap; /* by gap: a missed value must not add more than this share */
    double start_tol; /* a tolerance at which a random start cannot hide a component, for k = 1 */
} Job;

#define ROUTINES(X) \
    X(blas, sgemv, (char *, int *, int *, float *, float *, int *, float *, int *, float *, float *, int *)) \
    X(blas, dgemv, (char *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *)) \
    X(blas, sgemm, (char *, char *, int *, int *, int *, float *, float *, int *, float *, int *, float *, float *, int *)) \
    X(blas, dgemm, (char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *)) \
    X(blas, dsyrk, (char *, char *, int *, int *, double *, double *, int *, double *, double *, int *)) \
    X(lapack, dsyevd, (char *, char *, int *, double *, int *, double *, double *, int *, int *, int *, int *)) \
    X(lapack, dsyevr, (char *, char *, char *, int *, double *, int *, double *, double *, int *, int *, double *, int *, double *, double *, int *, int *, double *, int *, int *, int *, int *)) \
    X(lapack, dbdsqr, (char *, int *, int *, int *, int *, double *, double *, double *, int *, double *, int *, double *, int *, double *, int *)) \
    X(lapack, dbdsdc, (char *, char *, int *, double *, double *, double *, int *, double *, int *, double *, int *, double *, int *, int *)) \
    X(lapack, sgesdd, (char *, int *, int *, float *, int *, float *, float *, int *, float *, int *, float *, int *, int *, int *)) \
    X(lapack, dgesdd, (char *, int *, int *, double *, int *, double *, double *, int *, double *, int *, double *, int *, int *, int *))

static struct {
#define X(library, name, args) void (*name) args;
    ROUTINES(X)
#undef X
} scipy;

/* Singular values d (descending) of the upper bidiagonal matrix of d and, above it, e. */
static int bidiagonal_values(int j, double *d, double *e, double *work)
{
    int zero = 0, one = 1, bad = 0;
    double none = 0;
    scipy.dbdsqr("U", &j, &zero, &zero, &zero, d, e, &none, &one, &none, &one, &none, &one, work, &bad);
    return bad;
}

/* Its SVD, P diag(d) Q, both j x j by columns. */
static int bidiagonal_svd(int j, double *d, double *e, double *P, double *Q, double *work, int *iwork)
{
    int bad = 0;
    double none = 0;
    scipy.dbdsdc("U", "I", &j, d, e, P, &j, Q, &j, &none, iwork, work, iwork, &bad);
    return bad;
}

/* Random numbers: splitmix64, and normal numbers by the method of Box and Muller. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static void two_normal(uint64_t *state, double *pair)
{
    double u = ((next(state) >> 11) + 1) * 0x1p-53, v = (next(state) >> 11) * 0x1p-53;
    double r = sqrt(-2 * log(u)), t = 6.283185307179586 * v;
    pair[0] = r * cos(t);
    pair[1] = r * sin(t);
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Estimate of the gap of the k leading pairs of j values with residuals, as Gap.estimate of
 * trsvd/_krylov/stopping.py: a value after the k-th may grow by its residual. `room`: j numbers. */
static double gap_estimate(int j, int k, const double *d, const double *residual, double *room)
{
    double attained = 0, coarse = 0, hoped = 0;
    for (int i = 0; i < j; i++) {
        if (i < k) { attained += d[i]; coarse += residual[i]; }
        room[i] = i < k ? d[i] : sqrt(d[i] * (d[i] + 2 * residual[i]));
    }
    qsort(room, j, sizeof(double), descending);
    for (int i = 0; i < k; i++) hoped += room[i];
    return 2 * fmax(coarse / attained, 1 - attained / hoped);
}

#define T float
#define NAME(x) s_##x
#define ROUTINE(x) scipy.s##x
#define EPS FLT_EPSILON
#define SMALLEST 1e-18
#define LARGEST 1e18
#define LEAST_OF_GRAM 1e-4
#define SINGLE
#include "small_solver.inc"
#undef T
#undef NAME
#undef ROUTINE
#undef EPS
#undef SMALLEST
#undef LARGEST
#undef LEAST_OF_GRAM
#undef SINGLE
#define T double
#define NAME(x) d_##x
#define ROUTINE(x) scipy.d##x
#define EPS DBL_EPSILON
#define SMALLEST 1e-140
#define LARGEST 1e140
#define LEAST_OF_GRAM 1e-2
#include "small_solver.inc"

/* leading(kind, count, p, q, k, want, most, flat_gives_way, by_gap, left_is_long, check, check_most, check_loose, tol,
 *         missed_gap, start_tol, seed, A, start, long, values, short, residuals, numbers)
 *
 * A: `count` matrices, each p x q by columns. start: `want` right vectors of the user one after the
 * other, or nothing. The other arrays are results, for each matrix:
 * `want` vectors of either side one after the other, values, k residuals, and COUNT numbers. */
static PyObject *leading(PyObject *self, PyObject *args)
{
    (void)self;
    int kind, count, p, q;
    unsigned long long seed;
    Job job;
    Py_buffer A, start, left, S, right, residuals, numbers;
    if (!PyArg_ParseTuple(args, "Ciiiiiiiiiiiidddky*y*w*w*w*w*w*", &kind, &count, &p, &q, &job.k, &job.want,
                          &job.most, &job.flat_gives_way, &job.by_gap, &job.left_is_long, &job.check,
                          &job.check_most, &job.check_loose, &job.tol, &job.missed_gap, &job.start_tol, &seed, &A, &start,
                          &left, &S, &right, &residuals, &numbers))
        return NULL;
    size_t size = kind == 's' ? sizeof(float) : sizeof(double), ends = sizeof(double) * count;
    size_t rows = p > q ? p : q, cols = p > q ? q : p, want = job.want;
    int fits = count >= 0 && p > 0 && q > 0 && job.k > 0 && job.k <= job.want && want <= cols && job.most >= 0 &&
               (size_t)A.len >= size * p * q * count &&
               (!start.len || (size_t)start.len >= size * want * (job.left_is_long ? cols : rows)) && (size_t)left.len >= size * rows * want * count &&
               (size_t)right.len >= size * cols * want * count && (size_t)S.len >= ends * want &&
               (size_t)residuals.len >= ends * job.k && (size_t)numbers.len >= ends * COUNT;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        if (kind == 's')
            s_all(count, p, q, &job, seed, A.buf, start.len ? start.buf : NULL, left.buf, S.buf, right.buf, residuals.buf, numbers.buf);
        else
            d_all(count, p, q, &job, seed, A.buf, start.len ? start.buf : NULL, left.buf, S.buf, right.buf, residuals.buf, numbers.buf);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "the buffers do not have the sizes that the numbers ask for");
    }
    PyBuffer_Release(&A);
    PyBuffer_Release(&start);
    PyBuffer_Release(&left);
    PyBuffer_Release(&S);
    PyBuffer_Release(&right);
    PyBuffer_Release(&residuals);
    PyBuffer_Release(&numbers);
    if (!fits) return NULL;
    Py_RETURN_NONE;
}

/* Address of a routine with 32-bit integers; an ImportError otherwise. */
static void *address(PyObject *table, const char *name)
{
    PyObject *capsule = PyMapping_GetItemString(table, name);
    if (!capsule) return NULL;
    const char *signature = PyCapsule_GetName(capsule);
    void *pointer = PyCapsule_GetPointer(capsule, signature);
    if (pointer && !strstr(signature, "int *")) {
        PyErr_Format(PyExc_ImportError, "%s of this SciPy has other integers: %s", name, signature);
        pointer = NULL;
    }
    Py_DECREF(capsule); /* its module keeps it */
    return pointer;
}

static PyObject *table_of(const char *library)
{
    PyObject *module = PyImport_ImportModule(library);
    PyObject *table = module ? PyObject_GetAttrString(module, "__pyx_capi__") : NULL;
    Py_XDECREF(module);
    return table;
}

static PyMethodDef methods[] = {{"leading", leading, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_small", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__small(void)
{
    PyObject *blas = table_of("scipy.linalg.cython_blas"), *lapack = NULL, *made = NULL;
    if (!blas || !(lapack = table_of("scipy.linalg.cython_lapack"))) goto end;
#define X(library, name, args) \
    if (!(*(void **)&scipy.name = address(library, #name))) goto end;
    ROUTINES(X)
#undef X
    made = PyModule_Create(&module);
end:
    Py_XDECREF(blas);
    Py_XDECREF(lapack);
    return made;
}
