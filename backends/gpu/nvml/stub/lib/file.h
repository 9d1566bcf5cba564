/* The state of the stub, and how it is read from its file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_GPUS = 16, MAX_MIGS = 8, MAX_PROCESSES = 64, TEXT = 96 };

enum {
	OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
	INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMED_OUT = 10, GPU_IS_LOST = 15, VERSION_MISMATCH = 25
};

/* The numbers of a device; names are the keys of the file. */
enum {
	UTILIZATION, MEMORY_UTILIZATION, MEMORY_TOTAL, MEMORY_USED, POWER, POWER_LIMIT, TEMPERATURE,
	THROTTLE, ENERGY, SM, OCCUPANCY, TENSOR, DRAM, ECC_CORRECTED, ECC_UNCORRECTED, XID, VALUES
};
static const char *const value_names[VALUES] = {
	"utilization", "memory_utilization", "memory_total", "memory_used", "power", "power_limit", "temperature",
	"throttle", "energy", "sm", "occupancy", "tensor", "dram", "ecc_corrected", "ecc_uncorrected", "xid"
};

typedef struct { int rc; unsigned long long u; double f; } value;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;

/* One GPU, or one MIG instance of a GPU. */
typedef struct {
	char uuid[TEXT], name[TEXT];
	int lost, gpm;
	unsigned instance; /* GPU instance id of a MIG instance */
	value v[VALUES];
	process processes[MAX_PROCESSES];
	unsigned process_count;
} device;

typedef struct { device self; device migs[MAX_MIGS]; unsigned mig_count; } gpu;

static struct {
	int init, state;
	char hang[TEXT];
	gpu gpus[MAX_GPUS];
	unsigned gpu_count;
} file;

static char lost[MAX_GPUS][TEXT]; /* by UUID: stays lost until the library is opened anew */
static unsigned lost_count;
static struct stat seen;

static void reset(device *d)
{
	memset(d, 0, sizeof *d);
	d->gpm = 1;
	for (int i = 0; i < VALUES; i++)
		d->v[i].rc = NOT_SUPPORTED;
}

static void set_value(device *d, const char *key, const char *text)
{
	for (int i = 0; i < VALUES; i++) {
		if (strcmp(key, value_names[i]) != 0)
			continue;
		value *v = &d->v[i];
		v->rc = text[0] == '!' ? atoi(text + 1) : OK;
		char *end;
		v->u = strtoull(text, &end, 0);
		v->f = strtod(text, NULL);
		if (*end == '.' || *end == 'e')
			v->u = v->f > 0 && v->f < 1.8e19 ? (unsigned long long)v->f : 0;
		return;
	}
}

static void set_process(device *d, const char *text)
{
	process p = { 0, 0, d->instance ? d->instance : 0xffffffffu, d->instance ? 0 : 0xffffffffu };
	if (d->process_count < MAX_PROCESSES && sscanf(text, "%u %lli", &p.pid, (long long *)&p.used) == 2)
		d->processes[d->process_count++] = p;
}

static device *add_gpu(const char *uuid)
{
	if (file.gpu_count == MAX_GPUS)
		return NULL;
	gpu *g = &file.gpus[file.gpu_count++];
	g->mig_count = 0;
	reset(&g->self);
	snprintf(g->self.uuid, TEXT, "%s", uuid);
	return &g->self;
}

static device *add_mig(const char *text)
{
	if (file.gpu_count == 0 || file.gpus[file.gpu_count - 1].mig_count == MAX_MIGS)
		return NULL;
	gpu *g = &file.gpus[file.gpu_count - 1];
	device *d = &g->migs[g->mig_count++];
	reset(d);
	sscanf(text, "%95s %u", d->uuid, &d->instance);
	return d;
}

static void read_line(char *line, device **at)
{
	char key[32] = "", text[TEXT] = "";
	if (sscanf(line, "%31s %95[^\n]", key, text) < 1 || key[0] == '#')
		return;
	if (strcmp(key, "init") == 0)
		file.init = atoi(text);
	else if (strcmp(key, "library") == 0)
		file.state = atoi(text);
	else if (strcmp(key, "hang") == 0)
		strcpy(file.hang, text[0] ? text : "all");
	else if (strcmp(key, "gpu") == 0)
		*at = add_gpu(text);
	else if (strcmp(key, "mig") == 0)
		*at = add_mig(text);
	else if (*at == NULL)
		return;
	else if (strcmp(key, "name") == 0)
		strcpy((*at)->name, text);
	else if (strcmp(key, "lost") == 0)
		(*at)->lost = 1;
	else if (strcmp(key, "gpm") == 0)
		(*at)->gpm = atoi(text);
	else if (strcmp(key, "process") == 0)
		set_process(*at, text);
	else
		set_value(*at, key, text);
}

static int is_lost(const char *uuid)
{
	for (unsigned i = 0; i < lost_count; i++)
		if (strcmp(lost[i], uuid) == 0)
			return 1;
	return 0;
}

/* reload reads the file when it changed. Without one there is no driver. */
static void reload(void)
{
	const char *path = getenv("SLUICE_NVML_STUB");
	struct stat now;
	memset(&now, 0, sizeof now);
	if (path == NULL || stat(path, &now) != 0) {
		memset(&file, 0, sizeof file);
		memset(&seen, 0, sizeof seen);
		file.init = DRIVER_NOT_LOADED;
		file.state = DRIVER_NOT_LOADED;
		return;
	}
	if (now.st_ino == seen.st_ino && now.st_size == seen.st_size && now.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
	    now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
		return;
	FILE *in = fopen(path, "r");
	if (in == NULL)
		return;
	seen = now;
	file.init = file.state = OK;
	file.hang[0] = 0;
	file.gpu_count = 0;
	device *at = NULL;
	for (char line[256]; fgets(line, sizeof line, in) != NULL;)
		read_line(line, &at);
	fclose(in);
	for (unsigned i = 0; i < file.gpu_count; i++) {
		device *d = &file.gpus[i].self;
		if (d->lost && !is_lost(d->uuid) && lost_count < MAX_GPUS)
			strcpy(lost[lost_count++], d->uuid);
	}
}

