// llama.cpp without a Node layer, driven by lines on stdin: "PROMPT GENERATE" evaluates PROMPT tokens of each sequence
// at once, then GENERATE tokens of each one by one, and answers with the milliseconds of both. No sampling; logits are
// computed and fetched.
//   llama-harness LIBRARY_FOLDER MODEL THREADS CONTEXT SEQUENCES DEPTH [STATE_FILE]
// CONTEXT is that of a sequence. With a DEPTH, a multiple of 512, there is one sequence, and every run begins behind so
// many tokens that the cache holds already; with a STATE_FILE, they are written there, too.
// There are no headers in the package that brings the library. Parameter blocks are passed by value as opaque words;
// that those which are set stand where they are expected is checked against the library's own defaults.

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CONTEXT = 0, BATCH = 1, MICRO_BATCH = 2, SEQUENCES = 3, THREADS = 7, THREADS_BATCH = 8, FLAGS = 32 };
// Of the bytes from FLAGS on: whether sequences share one cache.
enum { UNIFIED = 5, FLAG_COUNT = 6 };
static const char FLAG_DEFAULTS[FLAG_COUNT] = {0, 1, 1, 1, 1, 0};
enum { FILL = 512 };

typedef struct { int word[96]; } Parameters;
typedef struct {
  int32_t n_tokens, *token;
  float *embd;
  int32_t *pos, *n_seq_id, **seq_id;
  int8_t *logits;
} Batch;

extern void ggml_backend_load_all_from_path(const char *folder);
extern void llama_backend_init(void);
extern void llama_log_set(void (*log)(int, const char *, void *), void *data);
extern Parameters llama_model_default_params(void);
extern Parameters llama_context_default_params(void);
extern void *llama_model_load_from_file(const char *path, Parameters parameters);
extern void *llama_init_from_model(void *model, Parameters parameters);
extern Batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
extern int llama_decode(void *context, Batch batch);
extern void llama_synchronize(void *context);
extern float *llama_get_logits(void *context);
extern void *llama_get_memory(void *context);
extern bool llama_memory_seq_rm(void *memory, int32_t seq, int32_t from, int32_t to);
extern void llama_memory_seq_cp(void *memory, int32_t seq, int32_t target, int32_t from, int32_t to);
extern void llama_memory_seq_add(void *memory, int32_t seq, int32_t from, int32_t to, int32_t shift);
extern int32_t llama_memory_seq_pos_max(void *memory, int32_t seq);
extern size_t llama_state_seq_get_size(void *context, int32_t seq);
extern size_t llama_state_seq_get_data(void *context, uint8_t *data, size_t size, int32_t seq);
extern size_t llama_state_seq_set_data(void *context, const uint8_t *data, size_t size, int32_t seq);
extern size_t llama_state_seq_save_file(void *context, const char *path, int32_t seq, const int32_t *tokens,
                                        size_t count);

static void *context, *memory;
static Batch batch;
static int n_seq;

static void ignore(int level, const char *text, void *data) {
  (void)level, (void)text, (void)data;
}

static int fail(const char *message) {
  fprintf(stderr, "%s\n", message);
  exit(1);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

// The next `count` tokens of each sequence, at positions from `first` on; logits of the last of each.
static void evaluate(int first, int count) {
  batch.n_tokens = 0;
  for (int s = 0; s < n_seq; s++) {
    for (int i = 0; i < count; i++) {
      int row = batch.n_tokens++;
      batch.token[row] = 300 + rand() % 30000;
      batch.pos[row] = first + i;
      batch.n_seq_id[row] = 1;
      batch.seq_id[row][0] = s;
      batch.logits[row] = i == count - 1;
    }
  }
  if (llama_decode(context, batch) != 0) fail("llama.cpp could not evaluate a batch");
  llama_synchronize(context);
}

// Fills the cache with `depth` tokens without evaluating them, which takes minutes: the keys and values of a few are
// put in again and again, each time at the next positions. The second sequence is there for that.
static void fill(int depth) {
  evaluate(0, FILL);
  size_t size = llama_state_seq_get_size(context, 0);
  uint8_t *state = malloc(size);
  llama_state_seq_get_data(context, state, size, 0);
  for (int first = FILL; first < depth; first += FILL) {
    if (llama_state_seq_set_data(context, state, size, 1) != size) fail("llama.cpp could not restore a state");
    llama_memory_seq_add(memory, 1, 0, -1, first);
    llama_memory_seq_cp(memory, 1, 0, -1, -1);
    llama_memory_seq_rm(memory, 1, -1, -1);
  }
  free(state);
  if (llama_memory_seq_pos_max(memory, 0) != depth - 1) fail("the cache is not filled as it should be");
  // Keys are turned to their new positions before the next evaluation.
  evaluate(depth, 1);
  llama_memory_seq_rm(memory, 0, depth, -1);
}

int main(int argc, char **argv) {
  if (argc != 7 && argc != 8) return 2;
  int n_ctx = atoi(argv[4]), depth = atoi(argv[6]);
  n_seq = atoi(argv[5]);
  if (depth % FILL != 0 || (depth > 0 && n_seq != 1)) return 2;
  llama_log_set(ignore, NULL);
  ggml_backend_load_all_from_path(argv[1]);
  llama_backend_init();
  void *model = llama_model_load_from_file(argv[2], llama_model_default_params());
  if (!model) fail("the model could not be loaded");
  Parameters p = llama_context_default_params();
  char *flags = (char *)&p.word[FLAGS];
  bool is_known = p.word[CONTEXT] == 512 && p.word[BATCH] == 2048 && p.word[MICRO_BATCH] == 512 &&
                  p.word[SEQUENCES] == 1 && p.word[THREADS] == 4 && p.word[THREADS_BATCH] == 4;
  for (int i = 0; i < FLAG_COUNT; i++) is_known = is_known && flags[i] == FLAG_DEFAULTS[i];
  if (!is_known) fail("this version of llama.cpp lays out its parameters in another way");
  p.word[CONTEXT] = n_ctx * n_seq;
  p.word[SEQUENCES] = depth > 0 ? 2 : n_seq;
  flags[UNIFIED] = depth > 0;
  p.word[THREADS] = p.word[THREADS_BATCH] = atoi(argv[3]);
  context = llama_init_from_model(model, p);
  memory = llama_get_memory(context);
  batch = llama_batch_init(p.word[BATCH], 0, 1);
  if (depth > 0) fill(depth);
  if (argc == 8) {
    int32_t *tokens = calloc(depth, sizeof(int32_t));
    if (!llama_state_seq_save_file(context, argv[7], 0, tokens, depth)) fail("llama.cpp could not save the state");
    free(tokens);
  }
  int n_prompt, n_generate;
  volatile float sink = 0;
  puts("ready");
  fflush(stdout);
  while (scanf("%d %d", &n_prompt, &n_generate) == 2) {
    if (n_prompt * n_seq > p.word[BATCH]) fail("the prompts do not fit into a batch");
    for (int s = 0; s < n_seq; s++) llama_memory_seq_rm(memory, s, depth, -1);
    double start = now_ms();
    evaluate(depth, n_prompt);
    double middle = now_ms();
    for (int i = 0; i < n_generate; i++) {
      evaluate(depth + n_prompt + i, 1);
      sink += llama_get_logits(context)[5];
    }
    printf("%f %f\n", middle - start, now_ms() - middle);
    fflush(stdout);
  }
  return 0;
}
