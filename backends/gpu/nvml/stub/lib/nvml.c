/* A stub of libnvidia-ml.so.1: the calls that package nvml makes, answered
 * from the text file that the environment variable SLUICE_NVML_STUB names.
 * The file is looked at before each call and read again when it was replaced
 * or changed, so whoever writes it drives the GPUs. stub.go describes it.
 *
 * A function that a build shall lack is renamed with -DnvmlX=absent_nvmlX. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "file.h"

/* What a handle points to: which device, and of which nvmlInit. */
typedef struct { unsigned gpu; int mig; unsigned generation; } handle;
static handle handles[MAX_GPUS][MAX_MIGS + 1];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned opened, generation, sequence;

/* --- entering and leaving a call ----------------------------------------- */

/* enter locks, reads the file and waits while it says that this call hangs. */
static void enter(const char *function)
{
	pthread_mutex_lock(&lock);
	for (;;) {
		reload();
		if (strcmp(file.hang, "all") != 0 && strcmp(file.hang, function) != 0)
			return;
		pthread_mutex_unlock(&lock);
		nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
		pthread_mutex_lock(&lock);
	}
}

static int leave(int rc)
{
	pthread_mutex_unlock(&lock);
	return rc;
}

/* ready says whether the library is open. A driver that went away closes it,
 * until nvmlInit succeeds again. */
static int ready(void)
{
	if (file.state != OK) {
		opened = 0;
		return file.state;
	}
	return opened ? OK : UNINITIALIZED;
}

static int find(const handle *h, device **d)
{
	int rc = ready();
	if (rc != OK)
		return rc;
	if (h == NULL || h->generation != generation)
		return INVALID_ARGUMENT;
	if (h->gpu >= file.gpu_count)
		return GPU_IS_LOST;
	gpu *g = &file.gpus[h->gpu];
	if (is_lost(g->self.uuid))
		return GPU_IS_LOST;
	if (h->mig >= (int)g->mig_count)
		return INVALID_ARGUMENT;
	*d = h->mig < 0 ? &g->self : &g->migs[h->mig];
	return OK;
}

static handle *handle_of(unsigned gpu, int mig)
{
	handle *h = &handles[gpu][mig + 1];
	*h = (handle){ gpu, mig, generation };
	return h;
}

static int number(const char *function, const handle *h, int which, unsigned long long *out)
{
	device *d;
	enter(function);
	int rc = find(h, &d);
	if (rc == OK)
		rc = d->v[which].rc;
	if (rc == OK)
		*out = d->v[which].u;
	return leave(rc);
}

static int number32(const char *function, const handle *h, int which, unsigned *out)
{
	unsigned long long wide = 0;
	int rc = number(function, h, which, &wide);
	if (rc == OK)
		*out = (unsigned)wide;
	return rc;
}

static int text_of(const char *function, const handle *h, size_t offset, char *out, unsigned length)
{
	device *d;
	enter(function);
	int rc = find(h, &d);
	if (rc == OK && strlen((char *)d + offset) >= length)
		rc = INSUFFICIENT_SIZE;
	if (rc == OK)
		strcpy(out, (char *)d + offset);
	return leave(rc);
}

/* --- the library --------------------------------------------------------- */

int nvmlInit_v2(void)
{
	enter(__func__);
	if (file.init == OK && file.state == OK && opened++ == 0) {
		generation++;
		lost_count = 0;
		for (unsigned i = 0; i < file.gpu_count; i++)
			if (file.gpus[i].self.lost)
				strcpy(lost[lost_count++], file.gpus[i].self.uuid);
	}
	return leave(file.init != OK ? file.init : file.state);
}

int nvmlShutdown(void)
{
	enter(__func__);
	int rc = ready();
	if (rc == OK)
		opened--;
	return leave(rc);
}

const char *nvmlErrorString(int rc)
{
	return rc == OK ? "Success" : "an error of the stub";
}

int nvmlSystemGetDriverVersion(char *out, unsigned length)
{
	enter(__func__);
	int rc = ready();
	if (rc == OK)
		snprintf(out, length, "%s", "stub");
	return leave(rc);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
	enter(__func__);
	int rc = ready();
	if (rc == OK)
		*count = file.gpu_count;
	return leave(rc);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle **out)
{
	enter(__func__);
	int rc = ready();
	if (rc == OK && index >= file.gpu_count)
		rc = INVALID_ARGUMENT;
	if (rc == OK && is_lost(file.gpus[index].self.uuid))
		rc = GPU_IS_LOST;
	if (rc == OK)
		*out = handle_of(index, -1);
	return leave(rc);
}

/* --- one device ---------------------------------------------------------- */

typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned version, sensor; int celsius; } temperature_v1;

int nvmlDeviceGetUUID(handle *h, char *out, unsigned length)
{
	return text_of(__func__, h, offsetof(device, uuid), out, length);
}

int nvmlDeviceGetName(handle *h, char *out, unsigned length)
{
	return text_of(__func__, h, offsetof(device, name), out, length);
}

int nvmlDeviceGetUtilizationRates(handle *h, utilization *out)
{
	int rc = number32(__func__, h, UTILIZATION, &out->gpu);
	if (rc == OK && number32(__func__, h, MEMORY_UTILIZATION, &out->memory) != OK)
		out->memory = 0;
	return rc;
}

int nvmlDeviceGetMemoryInfo(handle *h, memory *out)
{
	int rc = number(__func__, h, MEMORY_TOTAL, &out->total);
	if (rc == OK)
		rc = number(__func__, h, MEMORY_USED, &out->used);
	out->free = out->total - out->used;
	return rc;
}

int nvmlDeviceGetMemoryInfo_v2(handle *h, memory_v2 *out)
{
	if (out->version != (sizeof *out | 2u << 24))
		return VERSION_MISMATCH;
	int rc = number(__func__, h, MEMORY_TOTAL, &out->total);
	if (rc == OK)
		rc = number(__func__, h, MEMORY_USED, &out->used);
	out->reserved = 0;
	out->free = out->total - out->used;
	return rc;
}

int nvmlDeviceGetPowerUsage(handle *h, unsigned *out) { return number32(__func__, h, POWER, out); }
int nvmlDeviceGetEnforcedPowerLimit(handle *h, unsigned *out) { return number32(__func__, h, POWER_LIMIT, out); }
int nvmlDeviceGetTemperature(handle *h, int sensor, unsigned *out)
{
	return sensor == 0 ? number32(__func__, h, TEMPERATURE, out) : INVALID_ARGUMENT;
}
int nvmlDeviceGetTemperatureV(handle *h, temperature_v1 *out)
{
	if (out->version != (sizeof *out | 1u << 24))
		return VERSION_MISMATCH;
	return out->sensor == 0 ? number32(__func__, h, TEMPERATURE, (unsigned *)&out->celsius) : INVALID_ARGUMENT;
}
int nvmlDeviceGetTotalEnergyConsumption(handle *h, unsigned long long *out) { return number(__func__, h, ENERGY, out); }
int nvmlDeviceGetCurrentClocksEventReasons(handle *h, unsigned long long *out) { return number(__func__, h, THROTTLE, out); }
int nvmlDeviceGetCurrentClocksThrottleReasons(handle *h, unsigned long long *out) { return number(__func__, h, THROTTLE, out); }

int nvmlDeviceGetComputeRunningProcesses_v3(handle *h, unsigned *count, process *out)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK) {
		if (*count < d->process_count)
			rc = INSUFFICIENT_SIZE;
		else
			memcpy(out, d->processes, d->process_count * sizeof *out);
		*count = d->process_count;
	}
	return leave(rc);
}

int nvmlDeviceGetTotalEccErrors(handle *h, int type, int since, unsigned long long *out)
{
	if (since != 0 || type < 0 || type > 1)
		return INVALID_ARGUMENT;
	return number(__func__, h, type == 0 ? ECC_CORRECTED : ECC_UNCORRECTED, out);
}

/* --- events -------------------------------------------------------------- */

/* One set, of one kind of event: a critical error (Xid) of a GPU, which comes
 * when the file names another number than before. */
typedef struct { handle *device; unsigned long long type, data; unsigned instance, compute_instance; } event;
static struct { unsigned generation; int registered[MAX_GPUS]; unsigned long long told[MAX_GPUS]; } events;

int nvmlEventSetCreate(void **out)
{
	enter(__func__);
	int rc = ready();
	if (rc == OK) {
		memset(&events, 0, sizeof events);
		events.generation = generation;
		*out = &events;
	}
	return leave(rc);
}

int nvmlEventSetFree(void *set) { return set == &events ? OK : INVALID_ARGUMENT; }

int nvmlDeviceRegisterEvents(handle *h, unsigned long long types, void *set)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK && (set != &events || events.generation != generation || types != 8))
		rc = INVALID_ARGUMENT;
	if (rc == OK)
		rc = d->v[XID].rc;
	if (rc == OK) {
		events.registered[h->gpu] = 1;
		events.told[h->gpu] = d->v[XID].u;
	}
	return leave(rc);
}

int nvmlEventSetWait_v2(void *set, event *out, unsigned milliseconds)
{
	enter(__func__);
	int rc = ready();
	if (rc == OK && (set != &events || events.generation != generation))
		rc = INVALID_ARGUMENT;
	if (rc != OK)
		return leave(rc);
	(void)milliseconds;
	for (unsigned i = 0; i < file.gpu_count; i++) {
		value v = file.gpus[i].self.v[XID];
		if (!events.registered[i] || v.rc != OK || v.u == events.told[i])
			continue;
		events.told[i] = v.u;
		*out = (event){ handle_of(i, -1), 8, v.u, 0xffffffffu, 0xffffffffu };
		return leave(OK);
	}
	return leave(TIMED_OUT);
}

/* --- MIG ----------------------------------------------------------------- */

int nvmlDeviceGetMigMode(handle *h, unsigned *current, unsigned *pending)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK)
		*current = *pending = file.gpus[h->gpu].mig_count > 0;
	return leave(rc);
}

int nvmlDeviceGetMaxMigDeviceCount(handle *h, unsigned *count)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK)
		*count = MAX_MIGS;
	return leave(rc);
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle *h, unsigned index, handle **out)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK && index >= file.gpus[h->gpu].mig_count)
		rc = NOT_FOUND;
	if (rc == OK)
		*out = handle_of(h->gpu, (int)index);
	return leave(rc);
}

int nvmlDeviceGetGpuInstanceId(handle *h, unsigned *id)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK && h->mig < 0)
		rc = NOT_SUPPORTED;
	if (rc == OK)
		*id = d->instance;
	return leave(rc);
}

/* --- GPM ----------------------------------------------------------------- */

/* A sample keeps the values of its time. Metrics are those of the later one;
 * what is wrong with a pair is an error, as it would give nonsense. */
typedef struct { unsigned sequence, generation, gpu, instance; value v[VALUES]; } sample;
typedef struct { unsigned id; int rc; double value; const char *short_name, *long_name, *unit; } metric;
typedef struct { unsigned version, count; sample *first, *second; metric metrics[]; } metrics;
typedef struct { unsigned version, supported; } gpm_support;

int nvmlGpmQueryDeviceSupport(handle *h, gpm_support *out)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc == OK)
		out->supported = (unsigned)d->gpm;
	return leave(rc);
}

int nvmlGpmSampleAlloc(sample **out)
{
	*out = calloc(1, sizeof **out);
	return OK;
}

int nvmlGpmSampleFree(sample *s)
{
	free(s);
	return OK;
}

static int take(device *d, unsigned gpu, sample *s)
{
	if (!file.gpus[gpu].self.gpm)
		return NOT_SUPPORTED;
	s->sequence = ++sequence;
	s->generation = generation;
	s->gpu = gpu;
	s->instance = d->instance;
	memcpy(s->v, d->v, sizeof s->v);
	return OK;
}

int nvmlGpmSampleGet(handle *h, sample *s)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	return leave(rc == OK ? take(d, h->gpu, s) : rc);
}

int nvmlGpmMigSampleGet(handle *h, unsigned instance, sample *s)
{
	device *d;
	enter(__func__);
	int rc = find(h, &d);
	if (rc != OK)
		return leave(rc);
	gpu *g = &file.gpus[h->gpu];
	for (unsigned i = 0; i < g->mig_count; i++)
		if (g->migs[i].instance == instance)
			return leave(take(&g->migs[i], h->gpu, s));
	return leave(INVALID_ARGUMENT);
}

int nvmlGpmMetricsGet(metrics *m)
{
	static const int known[] = { [2] = SM, [3] = OCCUPANCY, [5] = TENSOR, [10] = DRAM };
	enter(__func__);
	int rc = ready();
	const sample *a = m->first, *b = m->second;
	if (rc == OK && m->version != 1)
		rc = VERSION_MISMATCH;
	if (rc == OK && (a == NULL || b == NULL || a->sequence == 0 || a->sequence >= b->sequence || a->generation != b->generation ||
			 a->gpu != b->gpu || a->instance != b->instance))
		rc = INVALID_ARGUMENT;
	for (unsigned i = 0; rc == OK && i < m->count; i++) {
		metric *want = &m->metrics[i];
		int which = want->id < sizeof known / sizeof *known ? known[want->id] : 0;
		want->rc = which ? b->v[which].rc : NOT_SUPPORTED;
		want->value = which ? b->v[which].f : 0;
	}
	return leave(rc);
}
