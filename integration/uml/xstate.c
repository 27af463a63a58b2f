/*
 * Loaded into linux.uml (LD_PRELOAD). It saves and restores the vector registers of its processes by ptrace(2), in a
 * buffer that was large enough for the processors of its time. The host's kernel takes all of them or none (EFAULT,
 * "ptrace set fp regs failed"), and newer processors have more: AMX tiles alone are 8 KiB. So what linux.uml does not
 * know is set to its initial state, which is where nothing that runs inside ever takes it from.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*ptrace_t)(enum __ptrace_request, pid_t, void *, void *);

static char registers[1 << 16];

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_t next;
	static size_t all;
	va_list arguments;
	pid_t pid;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (!next)
		next = (ptrace_t)dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
		return next(request, pid, address, data);

	struct iovec *given = data;
	if (!all) {
		struct iovec whole = {registers, sizeof registers};
		if (next(PTRACE_GETREGSET, pid, address, &whole))
			return -1;
		all = whole.iov_len;
		memset(registers, 0, sizeof registers);
	}
	if (given->iov_len >= all)
		return next(request, pid, address, data);
	memcpy(registers, given->iov_base, given->iov_len);
	struct iovec whole = {registers, all};
	return next(request, pid, address, &whole);
}
