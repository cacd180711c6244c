// llama.cpp without a Node layer, driven by lines on stdin: "PROMPT GENERATE DEPTH" evaluates PROMPT tokens at once, then
// GENERATE tokens one by one, and answers with the milliseconds of both. With a DEPTH, that many tokens are evaluated
// before the clock starts. No sampling; logits are computed and fetched.
//   llama-harness LIBRARY_FOLDER MODEL THREADS CONTEXT
// There are no headers in the package that brings the library. Parameter blocks are passed by value as opaque words;
// that those which are set stand where they are expected is checked against the library's own defaults.

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CONTEXT = 0, BATCH = 1, MICRO_BATCH = 2, THREADS = 7, THREADS_BATCH = 8 };

typedef struct { int word[96]; } Parameters;
typedef struct { long word[16]; } Batch;

extern void ggml_backend_load_all_from_path(const char *folder);
extern void llama_backend_init(void);
extern void llama_log_set(void (*log)(int, const char *, void *), void *data);
extern Parameters llama_model_default_params(void);
extern Parameters llama_context_default_params(void);
extern void *llama_model_load_from_file(const char *path, Parameters parameters);
extern void *llama_init_from_model(void *model, Parameters parameters);
extern Batch llama_batch_get_one(int *tokens, int count);
extern int llama_decode(void *context, Batch batch);
extern void llama_synchronize(void *context);
extern float *llama_get_logits(void *context);
extern void *llama_get_memory(void *context);
extern void llama_memory_clear(void *memory, bool data);

static void ignore(int level, const char *text, void *data) {
  (void)level, (void)text, (void)data;
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static void evaluate(void *context, int *tokens, int count) {
  for (int i = 0; i < count; i++) tokens[i] = 300 + rand() % 30000;
  if (llama_decode(context, llama_batch_get_one(tokens, count)) != 0) exit(3);
  llama_synchronize(context);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int n_ctx = atoi(argv[4]);
  llama_log_set(ignore, NULL);
  ggml_backend_load_all_from_path(argv[1]);
  llama_backend_init();
  void *model = llama_model_load_from_file(argv[2], llama_model_default_params());
  if (!model) return fprintf(stderr, "the model could not be loaded\n"), 1;
  Parameters p = llama_context_default_params();
  if (p.word[CONTEXT] != 512 || p.word[BATCH] != 2048 || p.word[MICRO_BATCH] != 512 || p.word[THREADS] != 4 ||
      p.word[THREADS_BATCH] != 4)
    return fprintf(stderr, "this version of llama.cpp lays out its parameters in another way\n"), 1;
  p.word[CONTEXT] = n_ctx;
  p.word[BATCH] = n_ctx;
  p.word[THREADS] = p.word[THREADS_BATCH] = atoi(argv[3]);
  void *context = llama_init_from_model(model, p);
  int *tokens = malloc(sizeof(int) * n_ctx);
  int n_prompt, n_generate, n_depth;
  volatile float sink = 0;
  puts("ready");
  fflush(stdout);
  while (scanf("%d %d %d", &n_prompt, &n_generate, &n_depth) == 3) {
    llama_memory_clear(llama_get_memory(context), true);
    if (n_depth > 0) evaluate(context, tokens, n_depth);
    double start = now_ms();
    if (n_prompt > 0) evaluate(context, tokens, n_prompt);
    double middle = now_ms();
    for (int i = 0; i < n_generate; i++) {
      evaluate(context, tokens, 1);
      sink += llama_get_logits(context)[5];
    }
    printf("%f %f\n", middle - start, now_ms() - middle);
    fflush(stdout);
  }
  return 0;
}
