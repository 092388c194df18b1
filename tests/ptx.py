"""Executes the PTX that CUDA's compiler makes of a kernel, on NumPy, all threads of many groups at once.

What an instruction does comes from the PTX ISA (NVIDIA, version 8.5) and not from the kernels. It is stricter than a
GPU. These raise `Fault`, with the instruction and a thread:
- accesses outside of a memory or not at a multiple of their size, and a division by zero;
- reading shared memory that nobody wrote, and what two threads do to one place of it without a barrier between
  (unless both read);
- touching a place that an asynchronous copy is on its way to: it arrives when its thread waits for it, and not before;
- a barrier that only some threads of a group reach, an instruction of a whole warp that only some of its lanes reach;
- a place in global memory that one group writes and another one reads or writes in the same launch, unless both do it
  by atomics, or fences and an atomic let the other one read it (memory_order.py);
- one that is written in a launch that reads it by ld.global.nc, the instruction for what does not change;
- for wgmma: reading what was written by ordinary stores without a fence since, and writing what is still to be read;
- an instruction that is not known here, and arguments that do not fit a kernel's parameters.

Numbers: fused products and sums are taken in float64 and rounded once more, which differs from one rounding in rare
ties. Approximations (ex2, lg2, rcp, ...) are exact but for one rounding. Products of tensor cores are summed in float64
and rounded once, where the hardware keeps fewer bits. Memory starts as NaN.

Atomics of one instruction take place in an order that is drawn by chance, the same in each process. Threads that take
different branches go on separately; those that are furthest behind go first, which brings them
together again where branches join. A basic block is translated to Python when it is first met.
"""

from __future__ import annotations

import itertools
import re
from functools import cache

import numpy as np
import nvrtc
from memory_order import Order

from cvstyle.backends.device import CompilerError, pool

u1, u2, u4, u8 = (np.dtype(f"u{n}") for n in (1, 2, 4, 8))
i1, i2, i4, i8 = (np.dtype(f"i{n}") for n in (1, 2, 4, 8))
f4, f8 = np.dtype("f4"), np.dtype("f8")
TYPES = {
    "u8": u1, "u16": u2, "u32": u4, "u64": u8, "s8": i1, "s16": i2, "s32": i4, "s64": i8, "b8": u1, "b16": u2,
    "b32": u4, "b64": u8, "f32": f4, "f64": f8, "pred": np.dtype(bool),
}  # fmt: skip
SHARED_BASE = 1 << 10  # of a group's shared memory in its window
GENERIC_SHARED = 1 << 56  # where that window is among all addresses
_AT_ONCE = 1 << 13  # threads
_WAITS, _LEFT = 1 << 20, 1 << 30  # added to the block that a thread goes on with; of one that has returned
_MANY = 4095  # in place of a thread's number: several have read it
_COMING = -1  # an asynchronous copy is on its way there
_TINY = np.float32(2.0**-126)


class Fault(Exception):
    """What a kernel must not do; the text names the instruction and a thread."""


# Memory


class Memory:
    """Bytes of the device at an address, and who touched them: launch, group, lane and whether by ld.global.nc or an
    atomic; when, where a launch has atomics (`Order.moment`)."""

    addresses = itertools.count(1 << 20, 1 << 40)

    def __init__(self, size):
        self.address, self.size = next(self.addresses), size
        self.bytes = np.full(-(-size // 16) * 16, 255, np.uint8)
        self.written, self.read, self.moments = (np.zeros(size, np.int64) for _ in range(3))


class Device:
    """As `cvstyle.backends.opencl.Device` has it, as far as `fake_cupy` asks for it."""

    single_pass_reductions = True

    def __init__(self, architecture="compute_80", memory=1 << 34):
        self.architecture, self.capacity = architecture, memory

    def allocate(self, size):
        if size > self.capacity:
            raise MemoryError
        return Memory(size)

    def view(self, memory, start, size):
        return memory, start, size

    def upload(self, view, host):
        memory, start, room = view
        host = host.reshape(-1).view(np.uint8)
        assert host.size <= room
        memory.bytes[start : start + host.size] = host

    def download(self, host, view):
        memory, start, room = view
        target = host.reshape(-1).view(np.uint8)
        assert target.size <= room
        target[:] = memory.bytes[start : start + target.size]

    def copy(self, target, source, size):
        assert size <= min(target[2], source[2])
        target[0].bytes[target[1] : target[1] + size] = source[0].bytes[source[1] : source[1] + size]

    def compile(self, source, options):
        architecture = "compute_90a" if "-DWGMMA=1" in options else self.architecture
        try:
            return module(source, options, architecture).__getitem__
        except ValueError as error:
            raise CompilerError(str(error)) from None

    def launch(self, kernel, groups, threads, arguments):
        kernel.launch(groups, threads, arguments)

    def synchronize(self):
        pass


class Pool(pool.DevicePool):
    """Gives every array memory of exactly its size, so that any access outside of an array shows."""

    def empty(self, size, persistent=False):
        self.returned.clear()
        self.reserved += size
        self.max_allocated = self.reserved
        return pool.Block(self, None, 0, size, self._device.view(self._device.allocate(size), 0, size))


@cache
def module(source, options, architecture):
    """Kernels by name."""
    return parse(nvrtc.compile_to_ptx(source, (*options, "-ftz=true"), architecture))


# Text


class Instruction:
    def __init__(self, text, number):
        found = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*);", text)
        if found is None:
            raise Fault(f"line {number}: not understood: {text}")
        negated, self.predicate, self.name, operands = found.groups()
        self.negated, self.text, self.number = bool(negated), text, number
        self.parts = self.name.replace("::", ":").split(".")
        self.operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", operands)

    def __repr__(self):
        return f"line {self.number}: {self.text}"


def parse(text):
    """Kernels by name, of a module in PTX."""
    kernels, kernel, header = {}, None, False
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("//")[0].strip()
        found = re.match(r"(?:\.visible )?\.entry (\w+)\(", line)
        if found:
            kernel = kernels[found[1]] = Kernel(found[1])
            header = True
        elif header:
            found = re.match(r"\.param \.(\w+) (\w+)", line)
            if found:
                kernel.parameters[found[2]] = TYPES[found[1]]
            elif line.startswith(".maxntid"):
                kernel.most = int(re.search(r"\d+", line)[0])
            header = line != "{"
        elif line.startswith(".reg"):
            kind, name, count = re.match(r"\.reg \.(\w+)\s+(%\w+?)<(\d+)>", line).groups()
            kernel.registers.update({f"{name}{i}": (len(kernel.registers) + i, TYPES[kind]) for i in range(int(count))})
        elif line.startswith(".shared"):
            found = re.match(r"\.shared \.align (\d+) \.(\w+) ([\w$]+)(?:\[(\d+)\])?;", line)
            align, kind, name, count = found.groups()
            start = -(-kernel.shared // int(align)) * int(align)
            kernel.symbols[name] = SHARED_BASE + start
            kernel.shared = start + TYPES[kind].itemsize * int(count or 1)
        elif line == "}":
            kernel.finish()
            kernel = None
        elif kernel is None or not line or line.startswith((".pragma", "(", ")")):
            if kernel is None and line and not line.startswith((".version", ".target", ".address_size", ".extern")):
                raise Fault(f"line {number}: not understood: {line}")
        elif re.fullmatch(r"[\w$]+:", line):
            kernel.labels[line[:-1]] = kernel.block()
        else:
            for statement in re.findall(r"[^\s;][^;]*;?", line):
                kernel.add(Instruction(statement, number))
    return kernels


class Block:
    """A piece of code that is entered at its first instruction only. end: the branch, barrier or return, or None."""

    def __init__(self):
        self.body, self.end, self.functions = [], None, {}


class Kernel:
    def __init__(self, name):
        self.name, self.parameters, self.registers, self.symbols, self.labels = name, {}, {}, {}, {}
        self.shared, self.most, self.blocks = 0, 1024, [Block()]

    def block(self):
        """The number of a new block; of the last one, where that is empty."""
        if self.blocks[-1].body or self.blocks[-1].end:
            self.blocks.append(Block())
        return len(self.blocks) - 1

    def add(self, instruction):
        if self.blocks[-1].end:
            self.block()
        if instruction.parts[0] in ("bra", "ret", "exit", "bar", "barrier"):
            self.blocks[-1].end = instruction
        else:
            self.blocks[-1].body.append(instruction)

    def finish(self):
        """Which registers may hold denormal numbers (the others come from instructions that flush them); the least
        access to shared memory."""
        body = [i for b in self.blocks for i in b.body]
        self.orders = any(i.parts[0] in ("atom", "red") for i in body)
        self.grain = min((TYPES[i.parts[-1]].itemsize for i in body if i.parts[0] in ("ld", "st")
                          and "shared" in i.parts), default=4)  # fmt: skip
        self.grain = min(self.grain, 4)
        self.denormal, size = set(), -1
        while len(self.denormal) > size:
            size = len(self.denormal)
            for i in body:
                names = re.findall(r"%fd?\d+", " ".join(i.operands))
                if not names:
                    continue
                if i.parts[0] == "ld" or (
                    i.parts[0] in ("mov", "selp") and (len(names) == 1 or self.denormal & set(names[1:]))
                    and not i.operands[-1].startswith("0f")
                ):  # fmt: skip
                    self.denormal.update(names if i.parts[0] == "ld" else names[:1])

    def launch(self, groups, threads, arguments):
        if threads > self.most or self.shared > 48 << 10 or not all(0 < n < 1 << 16 for n in groups[1:]):
            raise Fault(f"{self.name}: a launch of {groups} × {threads} with {self.shared} bytes of shared memory")
        values, memories = self._arguments(arguments)
        each = max(1, min(_AT_ONCE // threads, (32 << 20) // (self.shared + 1)))
        total, number, order = int(np.prod(groups)), next(_launches), Order() if self.orders else None
        with np.errstate(all="ignore"):
            for first in range(0, total, each):
                numbers = range(first, min(first + each, total))
                Run(self, groups, threads, numbers, values, memories, number, order).go()

    def _arguments(self, arguments):
        if len(arguments) != len(self.parameters):
            raise Fault(f"{self.name} takes {len(self.parameters)} arguments, not {len(arguments)}")
        values, memories = {}, {}
        for (name, kind), argument in zip(self.parameters.items(), arguments):
            if isinstance(argument, tuple):
                memories[argument[0].address] = argument[0]
                argument = np.uint64(argument[0].address + argument[1])
            if np.dtype(type(argument)).newbyteorder("=") not in (kind, {u4: i4}.get(kind)):
                raise Fault(f"{self.name}: {name} is of type {kind}, not {type(argument).__name__}")
            values[name] = np.array([argument]).view(kind)
        return values, memories


_launches = itertools.count(1)

# Execution


class Run:
    """Some groups of a launch. A register is an array with a number per thread, or one number if all have the same."""

    def __init__(self, kernel, groups, threads, numbers, values, memories, launch, order):
        self.kernel, self.values, self.memories, self.launch, self.order = kernel, values, memories, launch, order
        self.numbers, self.chance = np.array(numbers), np.random.default_rng(launch)
        self.group = np.repeat(np.array(numbers), threads)
        self.count, self.threads, across = self.group.size, threads, groups[0] * groups[1]
        self.lane = np.tile(np.arange(threads), len(numbers))
        self.marks = launch << 40 | self.group << 12 | self.lane << 1
        one = lambda n: np.array([n], u4)  # noqa: E731
        self.special = {
            "%tid.x": self.lane.astype(u4), "%tid.y": one(0), "%tid.z": one(0), "%ntid.x": one(threads),
            "%ntid.y": one(1), "%ntid.z": one(1), "%laneid": (self.lane % 32).astype(u4),
            "%ctaid.x": (self.group % groups[0]).astype(u4),
            "%ctaid.y": (self.group % across // groups[0]).astype(u4), "%ctaid.z": (self.group // across).astype(u4),
            **{f"%nctaid.{axis}": one(n) for axis, n in zip("xyz", groups)},
        }  # fmt: skip
        self.registers = [np.zeros(1, kind) for _, kind in kernel.registers.values()]
        self.local = np.repeat(np.arange(len(numbers)), threads)  # number of the group in these
        self.size = -(-kernel.shared // 128) * 128
        self.window = self.local * self.size - SHARED_BASE
        self.shared = np.full(len(numbers) * self.size, 255, np.uint8)
        self.writer, self.reader = (np.zeros(self.shared.size // kernel.grain, np.int64) for _ in range(2))
        self.epochs = np.zeros(len(numbers), np.int64)
        self._new_epoch(slice(None))
        self.committed, self.copies = np.zeros(self.count, np.int64), []
        self.fragments = {}
        self.products, self.asked = [], np.zeros(self.count, np.int64)  # of wgmma: under way, and groups committed
        self.unfenced = np.zeros(self.shared.size // 16, bool)

    def go(self):
        at, pcs = 0, None  # pcs: None while all threads are at the same block
        while True:
            mask = None if pcs is None else pcs == at
            block = self.kernel.blocks[at]
            function = block.functions.get(mask is None)
            if function is None:
                function = block.functions[mask is None] = translate(self.kernel, block, mask is not None)
            function(self, self.registers, mask)
            end, after = block.end, at + 1
            if end is None:
                targets = after
            elif end.parts[0] == "bra":
                target = self.kernel.labels[end.operands[0]]
                targets = target if end.predicate is None else np.where(self._condition(end), target, after)
            elif end.parts[0] in ("ret", "exit"):
                targets = _LEFT if end.predicate is None else np.where(self._condition(end), _LEFT, after)
            else:
                if end.name != "bar.sync" or end.operands != ["0"] or end.predicate:
                    raise Fault(f"{self.kernel.name}: {end}: not known")
                targets = _WAITS + after
            if mask is None:
                if np.ndim(targets) and targets.size > 1 and not (targets == targets[0]).all():
                    pcs = targets
                else:
                    at = int(np.ravel(targets)[0])
                    if at == _LEFT:
                        return
                    if at >= _WAITS:
                        at -= _WAITS
                        self._new_epoch(slice(None))
                    continue
            else:
                np.copyto(pcs, targets, where=mask)
            at = int(pcs.min())
            if _WAITS <= at < _LEFT:
                self._release(pcs)
                at = int(pcs.min())
            if at == _LEFT:
                return
            if (pcs == at).all():
                pcs = None

    def _condition(self, end):
        condition = self.registers[self.kernel.registers[end.predicate][0]]
        return ~condition if end.negated else condition

    def _release(self, pcs):
        """All threads wait or have returned: those of a group must wait at one barrier."""
        for group in np.unique(self.local[pcs < _LEFT]):
            own = pcs[self.local == group]
            if (own != own[0]).any():
                other = int(np.argmax(own != own[0]))
                ends = [f"after {self.kernel.blocks[n - _WAITS - 1].end}" if n < _LEFT else "at its end"
                        for n in (int(own[0]), int(own[other]))]  # fmt: skip
                raise Fault(f"{self.kernel.name}: thread 0 of a group is {ends[0]}, thread {other} is {ends[1]}")
        waits = pcs < _LEFT
        pcs[waits] -= _WAITS
        self._new_epoch(np.unique(self.local[waits]))

    def _new_epoch(self, groups):
        self.epochs[groups] += 1
        if self.order:
            self.order.barrier(self.numbers[groups])
        self.start = self.epochs[self.local] * (_MANY + 1)
        self.mark = self.start + 1 + self.lane

    def fault(self, at, problem, mask, bad=None):
        """bad: for each thread of the mask, whether it is the problem."""
        where = np.arange(self.count) if mask is None else np.nonzero(mask)[0]
        thread = where[int(np.argmax(np.reshape(bad, (len(bad), -1)).any(axis=1)))] if np.size(bad) > 1 else where[0]
        raise Fault(f"{self.kernel.name}: {at}: {problem}: thread {self.lane[thread]} of group {self.group[thread]}")

    def active(self, mask, value):
        """The numbers of the threads in a mask."""
        if value.size != self.count:
            value = np.broadcast_to(value, (self.count,))
        return value if mask is None else value[mask]

    def spread(self, mask, values):
        """A register from those numbers; what the others get is not used."""
        if mask is None:
            return values
        result = np.zeros(self.count, values.dtype)
        result[mask] = values
        return result

    # Global memory

    def _places(self, at, mask, addresses, kind, count):
        """(memory, number of the first element for each address), checked."""
        start = int(addresses[0])
        memory = self.memories.get((start >> 40 << 40) + (1 << 20))
        if memory is None:
            self.fault(at, f"address {start:#x} is in no memory that was given", mask)
        offsets = addresses.astype(np.int64) - memory.address
        bad = (offsets < 0) | (offsets + kind.itemsize * count > memory.size)
        if bad.any():
            self.fault(at, f"outside of a memory of {memory.size} bytes, at {offsets[np.argmax(bad)]}", mask, bad)
        bad = offsets % (kind.itemsize * count) != 0
        if bad.any():
            self.fault(at, "not at a multiple of its size", mask, bad)
        return memory, offsets

    def _by_memory(self, mask, address):
        """Masks of the threads whose addresses are in one memory; None where all are."""
        numbers = self.active(mask, address) >> u8.type(40)
        if (numbers == numbers[0]).all():
            return None
        threads, parts = np.arange(self.count) if mask is None else np.nonzero(mask)[0], []
        for number in np.unique(numbers):
            parts.append(np.zeros(self.count, bool))
            parts[-1][threads[numbers == number]] = True
        return parts

    def load_global(self, at, mask, address, kind, count, constant):
        uniform = address.size == 1
        parts = None if uniform else self._by_memory(mask, address)
        if parts:
            results = [np.zeros(self.count, kind) for _ in range(count)]
            for part in parts:
                for to, values in zip(results, self.load_global(at, part, address, kind, count, constant)):
                    np.copyto(to, values, where=part)
            return results
        addresses = address if uniform else self.active(mask, address)
        memory, offsets = self._places(at, None if uniform else mask, addresses, kind, count)
        marks = self.marks[:1] if uniform else self.active(mask, self.marks)
        results, view = [], memory.bytes.view(kind)
        for i in range(count):
            place = offsets + i * kind.itemsize
            written = memory.written[place]
            if uniform and (written >> 40 == self.launch).any():  # then it matters who reads
                return self.load_global(at, mask, np.broadcast_to(address, (self.count,)), kind, count, constant)
            bad = (written >> 40 == self.launch) & (constant or written >> 12 != marks >> 12)
            if bad.any() and self.order and not constant:
                readers = np.broadcast_to(marks, bad.shape)
                bad[bad] = ~self.order.knows(readers[bad], written[bad], memory.moments[place][bad])
            if bad.any():
                self.fault(at, "this launch writes what is read here", None if uniform else mask, bad)
            memory.read[place] = marks | constant
            values = view[offsets // kind.itemsize + i]
            results.append(values if uniform else self.spread(mask, values))
        return results

    def store_global(self, at, mask, address, values, kind):
        parts = self._by_memory(mask, address)
        if parts:
            for part in parts:
                self.store_global(at, part, address, values, kind)
            return
        memory, offsets = self._places(at, mask, self.active(mask, address), kind, len(values))
        marks = self.active(mask, self.marks)
        for i, value in enumerate(values):
            place = offsets + i * kind.itemsize
            written, read = memory.written[place], memory.read[place]
            bad = (written >> 40 == self.launch) & (written >> 12 != marks >> 12)
            bad |= (read >> 40 == self.launch) & ((read >> 12 != marks >> 12) | (read & 1 == 1))
            if bad.any():
                self.fault(at, "another group, or ld.global.nc, has this place in the same launch", mask, bad)
            memory.written[place] = marks
            if self.order:
                memory.moments[place] = self.order.moment
            bad = memory.written[place] != marks
            if bad.any():
                problem = "two threads write the same place"
                if (memory.written[place] >> 12 != marks >> 12).any():
                    problem = "another group writes this place in the same launch"
                self.fault(at, problem, mask, bad)
            memory.bytes.view(kind)[offsets // kind.itemsize + i] = self.active(mask, value)

    def atomic(self, at, mask, address, operation, operand, kind, ordered):
        """The numbers before. ordered: it fences before and after."""
        if self._by_memory(mask, address):
            self.fault(at, "an atomic on several memories is not known", mask)
        memory, offsets = self._places(at, mask, self.active(mask, address), kind, 1)
        marks, operand, view = self.active(mask, self.marks), self.active(mask, operand), memory.bytes.view(kind)
        written, read = memory.written[offsets], memory.read[offsets]
        bad = (written >> 40 == self.launch) & (written & 1 == 0) & (written >> 12 != marks >> 12)
        bad |= (read >> 40 == self.launch) & ((read >> 12 != marks >> 12) | (read & 1 == 1))
        if bad.any():
            self.fault(at, "another group, or ld.global.nc, has this place in the same launch", mask, bad)
        before, function = np.zeros(len(offsets), kind), _ATOMICS[operation]
        for i in self.chance.permutation(len(offsets)):
            group, lane = int(marks[i]) >> 12 & (1 << 28) - 1, int(marks[i]) >> 1 & 2047
            if ordered:
                self.order.fence(group, lane)
            place = offsets[i] // kind.itemsize
            before[i] = view[place]
            view[place] = function(before[i], operand[i])
            self.order.atomic(group, lane, (memory.address, int(offsets[i])))
            if ordered:
                self.order.fence(group, lane)
            memory.written[offsets[i]], memory.moments[offsets[i]] = marks[i] | 1, self.order.moment
        return self.spread(mask, before)

    def fence_memory(self, mask):
        """membar.gl and the like."""
        for mark in self.active(mask, self.marks) if self.order else ():
            self.order.fence(int(mark) >> 12 & (1 << 28) - 1, int(mark) >> 1 & 2047)

    # Shared memory

    def _shared_places(self, at, mask, address, size):
        """First bytes, checked."""
        offsets = self.active(mask, address).astype(np.int64) + self.active(mask, self.window)
        inside = offsets - self.active(mask, self.local) * self.size
        bad = (inside < 0) | (inside + size > self.kernel.shared)
        if bad.any():
            self.fault(at, f"outside of {self.kernel.shared} bytes, at {inside[np.argmax(bad)]}", mask, bad)
        bad = offsets % size != 0
        if bad.any():
            self.fault(at, "not at a multiple of its size", mask, bad)
        return offsets

    def _grains(self, offsets, size):
        grain = self.kernel.grain
        return offsets[:, None] // grain + np.arange(-(-size // grain))

    def load_shared(self, at, mask, address, kind, count):
        offsets = self._shared_places(at, mask, address, kind.itemsize * count)
        self._reads(at, mask, self._grains(offsets, kind.itemsize * count))
        view = self.shared.view(kind)
        return [self.spread(mask, view[offsets // kind.itemsize + i]) for i in range(count)]

    def _reads(self, at, mask, grains):
        mark, start = (self.active(mask, a)[:, None] for a in (self.mark, self.start))
        writer = self.writer[grains]
        if (writer <= 0).any():
            coming = (writer == _COMING).any()
            problem = "a copy is on its way there" if coming else "nobody has written this"
            self.fault(at, problem, mask, writer == _COMING if coming else writer == 0)
        bad = (writer > start) & (writer != mark)
        if bad.any():
            self.fault(at, "another thread wrote this after the last barrier", mask, bad)
        reader = self.reader[grains]
        own = np.where((reader > start) & (reader != mark), start + _MANY, mark)
        self.reader[grains] = own
        several = self.reader[grains] != own
        if several.any():
            self.reader[grains[several]] = np.broadcast_to(start, own.shape)[several] + _MANY

    def _writes(self, at, mask, grains):
        mark, start = (self.active(mask, a)[:, None] for a in (self.mark, self.start))
        writer, reader = self.writer[grains], self.reader[grains]
        if (writer == _COMING).any():
            self.fault(at, "a copy is on its way there", mask, writer == _COMING)
        bad = (writer > start) & (writer != mark) | (reader > start) & (reader != mark)
        if bad.any():
            self.fault(at, "another thread has this place since the last barrier", mask, bad)
        self.writer[grains] = mark
        bad = self.writer[grains] != mark
        if bad.any():
            self.fault(at, "two threads write the same place", mask, bad)

    def store_shared(self, at, mask, address, values, kind):
        size = kind.itemsize * len(values)
        offsets = self._shared_places(at, mask, address, size)
        self._writes(at, mask, self._grains(offsets, size))
        self._free_of_products(at, mask, offsets)
        self.unfenced[offsets // 16] = True
        for i, value in enumerate(values):
            self.shared.view(kind)[offsets // kind.itemsize + i] = self.active(mask, value)

    # Asynchronous copies

    def copy_async(self, at, mask, address, source, size, given):
        offsets = self._shared_places(at, mask, address, size)
        given = self.active(mask, given).astype(np.int64)
        if not np.isin(given, (0, size)).all():
            self.fault(at, "a part of a copy", mask)
        data = np.zeros((offsets.size, size), np.uint8)
        reads = given > 0
        if reads.any():
            wanted = np.zeros(self.count, bool)
            wanted[np.arange(self.count) if mask is None else mask] = reads
            words = self.load_global(at, wanted, np.broadcast_to(source, (self.count,)), u4, size // 4, True)
            data[reads] = np.stack([w[wanted] for w in words], axis=1).view(np.uint8)
        grains = self._grains(offsets, size)
        self._writes(at, mask, grains)
        self.writer[grains] = _COMING
        threads = np.arange(self.count) if mask is None else np.nonzero(mask)[0]
        self.copies.append([threads, self.committed[threads], offsets, data])

    def commit_copies(self, mask):
        self.committed += 1 if mask is None else mask

    def wait_for_copies(self, mask, pending):
        for copy in self.copies:
            threads, group, offsets, data = copy
            now = group < self.committed[threads] - pending
            if mask is not None:
                now &= mask[threads]
            grains = self._grains(offsets[now], data.shape[1])
            self.writer[grains] = self.mark[threads[now]][:, None]
            self.shared[offsets[now][:, None] + np.arange(data.shape[1])] = data[now]
            copy[:] = (a[~now] for a in copy)
        self.copies = [c for c in self.copies if c[0].size]

    # Warps

    def warps(self, at, mask, size=32):
        if self.threads % size or (mask is not None and (mask.reshape(-1, size) != mask[::size, None]).any()):
            raise Fault(f"{self.kernel.name}: {at}: only some threads of a warp, or of four, are here")

    def by_warp(self, value):
        return (value if value.size == self.count else np.broadcast_to(value, (self.count,))).reshape(-1, 32)

    def shuffle(self, at, mask, mode, value, lane, clamp, members):
        self.warps(at, mask)
        if mode != "bfly" or (self.active(mask, members) != 0xFFFFFFFF).any():
            raise Fault(f"{self.kernel.name}: {at}: not known")
        own = np.arange(32)
        target, clamp = own ^ self.by_warp(lane).astype(np.int64), self.by_warp(clamp).astype(np.int64)
        kept = clamp >> 8 & 31
        valid = target <= (own & kept | clamp & ~kept & 31)
        found = np.take_along_axis(self.by_warp(value), np.where(valid, target, own), 1)
        return found.ravel(), valid.ravel()

    def _matrix(self, words, kind, places):
        """(warps, rows, columns) from the registers of a fragment. places: of each element among (register, lane),
        and the half of it."""
        key = (id(places), *map(id, words))
        found = self.fragments.get(key)
        if found is None:
            if len(self.fragments) > 256:
                self.fragments.clear()
            together = np.concatenate([self.by_warp(w) for w in words], axis=1)
            found = self.fragments[key] = words, numbers_in(together, kind)[:, places]
        return found[1]

    def multiply(self, at, mask, kind, a, b, c):
        """mma.sync: the new sums."""
        self.warps(at, mask)
        places_a, places_b, places_c = fragments(kind)
        product = self._matrix(a, kind, places_a) @ self._matrix(b, kind, places_b)
        product = product.reshape(len(product), -1)
        return [
            (np.broadcast_to(sums, (self.count,)) + product[:, places].ravel()).astype(f4)
            for sums, places in zip(c, places_c)
        ]

    # Hopper's products of a warpgroup

    def multiply_shared(self, at, mask, shape, kind, a, descriptor, sums):
        """wgmma.mma_async with a in registers and b in shared memory, not swizzled, summed axis contiguous."""
        self.warps(at, mask, 128)
        columns, depth = shape
        places_a, _, places_c = fragments(kind)
        left = self._matrix(a, kind, places_a).reshape(-1, 64, depth)
        words = np.broadcast_to(descriptor, (self.count,)).reshape(-1, 128)
        live = np.ones(len(words), bool) if mask is None else mask[::128]
        if (words[live] != words[live, :1]).any():
            raise Fault(f"{self.kernel.name}: {at}: threads have different descriptors")
        word = words[:, 0].astype(np.int64)
        start, leading, stride = (word >> shift & 0x3FFF for shift in (0, 16, 32))
        if (word[live] >> 46).any() or (word[live] & 0xC000C000).any():
            raise Fault(f"{self.kernel.name}: {at}: a descriptor with bits that are not known: {word[live][0]:#x}")
        column, half = np.arange(columns)[:, None], np.arange(2)  # rows of 16 bytes: core matrices have 8 of them
        rows = start[:, None, None] + column // 8 * stride[:, None, None] + column % 8 + half * leading[:, None, None]
        rows = np.where(live[:, None, None], rows, SHARED_BASE // 16).reshape(len(word), -1)
        offsets = rows * 16 + self.window[::128, None]
        inside = rows * 16 - SHARED_BASE
        if ((inside < 0) | (inside + 16 > self.kernel.shared))[live].any():
            raise Fault(f"{self.kernel.name}: {at}: a descriptor leads outside of the shared memory")
        threads = np.nonzero(live)[0] * 128
        grains = self._grains(offsets[live].ravel(), 16)
        writer = self.writer[grains].reshape(threads.size, -1)
        if (writer <= 0).any() or (writer > self.start[threads][:, None]).any():
            raise Fault(f"{self.kernel.name}: {at}: reads what nobody has written, or not before the last barrier")
        if self.unfenced[offsets[live] // 16].any():
            raise Fault(f"{self.kernel.name}: {at}: no fence.proxy.async after the stores that wrote what is read")
        data = self.shared[offsets[..., None] + np.arange(16)].view(u4).reshape(len(word), columns, 8)
        right = numbers_in(data, kind).reshape(len(word), columns, depth)
        product = (left @ right.transpose(0, 2, 1)).reshape(-1, 16, columns)
        self.products.append([threads, self.asked[threads], offsets[live]])
        results = []
        for i, value in enumerate(sums):
            row, column = np.divmod(places_c[i % 4], 8)
            found = product[:, row, column + i // 4 * 8].ravel()
            results.append((np.broadcast_to(value, (self.count,)) + found).astype(f4))
        return results

    def commit_products(self, mask):
        self.asked += 1 if mask is None else mask

    def wait_for_products(self, mask, pending):
        for product in self.products:
            threads, group, offsets = product
            kept = group >= self.asked[threads] - pending
            if mask is not None:
                kept |= ~mask[threads]
            product[:] = threads[kept], group[kept], offsets[kept]
        self.products = [p for p in self.products if p[0].size]

    def _free_of_products(self, at, mask, offsets):
        for _, _, reads in self.products:
            bad = np.isin(offsets // 16, reads // 16)
            if bad.any():
                self.fault(at, "a product that is under way reads this", mask, bad)

    def fence(self, mask):
        """fence.proxy.async: what these threads stored can be read by the tensor cores."""
        places = np.nonzero(self.unfenced)[0]
        threads = self.writer.reshape(self.unfenced.size, -1)[places] % (_MANY + 1) - 1
        numbers = (places * 16 // max(self.size, 1) * self.threads)[:, None] + threads
        reached = np.ones(self.count, bool) if mask is None else mask
        self.unfenced[places] = ~(reached[numbers] | (threads < 0)).all(axis=1)


# Numbers


def flushed(x):
    return x * (np.abs(x) >= _TINY)


def fma(a, b, c):
    return flushed((a.astype(f8) * b + c).astype(f4))


def fma_down(a, b, c):
    exact = a.astype(f8) * b + c
    near = exact.astype(f4)
    return flushed(np.where(near > exact, np.nextafter(near, f4.type(-np.inf)), near))


def to_integer(x, kind, rounding):
    """Saturated; NaN gives 0."""
    x = rounding(x.astype(f8))
    limits = np.iinfo(kind)
    result = np.nan_to_num(x, nan=0).clip(limits.min, float(limits.max) - (1024 if kind.itemsize == 8 else 0))
    return result.astype(kind)


def tf32(x):
    bits = x.view(u4)
    special = bits & u4.type(0x7F800000) == 0x7F800000
    return np.where(special, bits, bits + u4.type(0x1000) & u4.type(0xFFFFE000))


def bf16(x):
    bits = x.view(u4)
    rounded = bits + u4.type(0x7FFF) + (bits >> u4.type(16) & u4.type(1)) >> u4.type(16)
    return np.where(np.isnan(x), u4.type(0x7FFF), rounded)


def f16(x):
    return x.astype(np.float16).view(u2).astype(u4)


def both(high, low):
    return high << u4.type(16) | low


def numbers_in(words, kind):
    """float64 (..., numbers) in words (..., words), the lower half first."""
    if kind == "tf32":
        return (words & u4.type(0xFFFFE000)).view(f4).astype(f8)
    halves = np.ascontiguousarray(words).view(u2)
    if kind == "f16":
        return halves.view(np.float16).astype(f8)
    return (halves.astype(u4) << u4.type(16)).view(f4).astype(f8)


@cache
def fragments(kind):
    """Where elements of A (16, k), B (k, 8) and of the sums lie (PTX ISA, "Matrix Fragments for mma.m16n8k8" with .tf32
    and "for mma.m16n8k16 with floating point type"): of A and B by matrix element, as a number among those of all
    registers one after the other, 32 lanes each, and of the sums by register and lane, as row · 8 + column."""
    tf32, pairs = kind == "tf32", 1 if kind == "tf32" else 2
    a, b, c = np.zeros((16, 8 * pairs), int), np.zeros((8 * pairs, 8), int), np.zeros((4, 32), int)
    for lane in range(32):
        group, thread = lane >> 2, lane % 4
        for i in range(4 * pairs):
            if tf32:
                row, column = group + (0 if i in (0, 2) else 8), thread + (0 if i in (0, 1) else 4)
            else:
                row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
                column = thread * 2 + (i & 1) + (0 if i < 4 else 8)
            a[row, column] = (i // pairs * 32 + lane) * pairs + i % pairs
        for i in range(2 * pairs):
            row = thread + 4 * i if tf32 else thread * 2 + (i & 1) + (0 if i < 2 else 8)
            b[row, group] = (i // pairs * 32 + lane) * pairs + i % pairs
        for i in range(4):
            c[i, lane] = (group if i < 2 else group + 8) * 8 + thread * 2 + (i & 1)
    return a, b, c


def permuted(a, b, selector):
    """prmt.b32 without a mode."""
    every = a.astype(u8) | b.astype(u8) << u8.type(32)
    result = np.zeros(1, u4)
    for i in range(4):
        choice = selector >> u4.type(4 * i) & u4.type(15)
        byte = (every >> (choice & u4.type(7)).astype(u8) * u8.type(8) & u8.type(255)).astype(u4)
        byte = np.where(choice & u4.type(8) != 0, (byte >> u4.type(7)) * u4.type(255), byte)
        result = result | byte << u4.type(8 * i)
    return result


def inserted(a, b, position, length):
    """bfi.b32 for a position and a length below 32."""
    mask = (u8.type(1) << (length & u4.type(255)).astype(u8)) - u8.type(1)
    mask = (mask << (position & u4.type(255)).astype(u8)).astype(u4)
    return b & ~mask | a << position & mask


def extracted(a, position, length):
    """bfe.u32"""
    mask = (u8.type(1) << length.astype(u8)) - u8.type(1)
    return (a.astype(u8) >> position.astype(u8) & mask).astype(u4)


def logic(a, b, c, table):
    """lop3.b32"""
    result = np.zeros(1, u4)
    for i in range(8):
        if table >> i & 1:
            result = result | (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    return result


def truncated_sum(a, b):
    """add.rz.f32: of the two floats beside the exact sum the one nearer to zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    total = a + b
    part = total - a
    rest = a - (total - part) + (b - part)  # the rounding error of `total` (Knuth's TwoSum)
    rounded = total.astype(f4)
    away = np.abs(rounded) > np.abs(total)
    away |= (rounded == total) & (rest != 0) & (np.signbit(rest) != np.signbit(total))
    return np.where(away & np.isfinite(total), np.nextafter(rounded, f4.type(0)), rounded)


def quotient(run, at, mask, a, b, remainder):
    bad = run.active(mask, b) == 0
    if bad.any():
        run.fault(at, "division by zero", mask, bad)
    rest = np.fmod(a, b)
    return rest if remainder else (a.astype(np.int64) - rest) // np.where(b == 0, 1, b)


_ATOMICS = {  # the new number from the one before and the operand
    "inc": lambda old, most: 0 if old >= most else old + 1, "add": lambda old, more: old + more,
    "max": max, "min": min, "exch": lambda _, new: new, "or": lambda old, more: old | more,
}  # fmt: skip

# Translation

_ARITHMETIC = {"add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}"}
_BITS = {"and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "~{0}"}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">",
                "hs": ">="}  # fmt: skip
_OPPOSITE = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
_FUNCTIONS = {
    "rcp": "1 / {0}", "sqrt": "np.sqrt({0})", "rsqrt": "1 / np.sqrt({0})", "ex2": "np.exp2({0})",
    "lg2": "np.log2({0})", "sin": "np.sin({0})", "cos": "np.cos({0})",
}  # fmt: skip
_ROUNDINGS = {"rni": "np.rint", "rzi": "np.trunc", "rmi": "np.floor", "rpi": "np.ceil"}


def translate(kernel, block, masked):
    """A function of (run, registers, mask) that does what is in a block before its end."""
    writer = _Writer(kernel, masked)
    for instruction in block.body:
        writer.instruction(instruction)
    lines = writer.lines or ["pass"]
    space = {**globals(), "K": writer.constants, "I": block.body}
    exec(compile("def function(S, R, m):\n " + "\n ".join(lines), f"<{kernel.name}>", "exec"), space)
    return space["function"]


class _Writer:
    def __init__(self, kernel, masked):
        self.kernel, self.masked, self.lines, self.constants, self.number = kernel, masked, [], [], -1

    def instruction(self, i):
        self.number += 1
        self.mask, self.i = ("m" if self.masked else "None"), i
        if i.predicate:
            condition = f"{'~' if i.negated else ''}R[{self.kernel.registers[i.predicate][0]}]"
            self.lines.append(f"q = np.broadcast_to({condition}, (S.count,)){' & m' if self.masked else ''}")
            self.mask = "q"
            self.lines.append("if q.any():")
            before, self.lines = self.lines, []
        method = getattr(self, f"_{i.parts[0]}", None)
        if method is None:
            self.unknown()
        method(i.parts, i.operands)
        if i.predicate:
            self.lines = before + [f" {line}" for line in self.lines]

    def unknown(self):
        raise Fault(f"{self.kernel.name}: {self.i}: this instruction is not known")

    def constant(self, value):
        self.constants.append(value)
        return f"K[{len(self.constants) - 1}]"

    def value(self, operand, kind, flush=False):
        """Python for an operand's numbers as of a type."""
        if operand in self.kernel.registers:
            number, own = self.kernel.registers[operand]
            text = f"R[{number}]"
            if own == kind:
                return f"flushed({text})" if flush and operand in self.kernel.denormal else text
            if own.itemsize == kind.itemsize:
                return f"{text}.view({kind.str[1:]})"
            if own.kind == "f" or kind.kind == "f":
                self.unknown()
            return f"{text}.astype({kind.str[1:]})"
        if operand.startswith("%"):
            return f"S.special[{operand!r}]"
        if operand in self.kernel.symbols:
            return self.constant(np.array([self.kernel.symbols[operand]], kind))
        if operand[:2].lower() in ("0f", "0d"):
            bits = np.array([int(operand[2:], 16)], u4 if operand[1] in "fF" else u8)
            return self.constant(bits.view(f4 if operand[1] in "fF" else f8))
        try:
            number = int(operand, 0)
        except ValueError:
            self.unknown()
        if kind.kind == "b":
            return self.constant(np.array([bool(number)]))
        if kind.kind == "f":
            self.unknown()
        return self.constant(np.array([number & (1 << 8 * kind.itemsize) - 1], f"u{kind.itemsize}").view(kind))

    def set(self, operand, text, kind=None):
        """operand ← the numbers of `text`, of a type."""
        if operand == "_":
            return
        number, own = self.kernel.registers[operand]
        if kind is not None and kind != own:
            if own.itemsize < kind.itemsize:
                self.unknown()
            if own.itemsize > kind.itemsize:  # extended by its sign, or by zeros
                text = f"({text}).astype({'i' if kind.kind == 'i' else 'u'}{own.itemsize})"
            text = f"({text}).view({own.str[1:]})"
        if self.mask != "None":
            text = f"np.where({self.mask}, {text}, R[{number}])"
        self.lines.append(f"R[{number}] = {text}")

    def address(self, operand):
        name, _, offset = operand[1:-1].replace(" ", "").partition("+")
        own = self.kernel.registers[name][1] if name in self.kernel.registers else u8
        text = self.value(name, own)
        if offset:
            text = f"({text} + {self.constant(np.array([int(offset) & (1 << 64) - 1], u8).astype(own))})"
        return text

    @property
    def here(self):
        return f"I[{self.number}], {self.mask}"

    # Moves

    def _mov(self, parts, operands):
        kind = TYPES[parts[-1]]
        target, source = operands
        halves = np.dtype(f"u{kind.itemsize // 2}") if kind.itemsize > 1 else None
        if source.startswith("{"):
            low, high = source.strip("{} ").replace(" ", "").split(",")
            wide = f"u{kind.itemsize}"
            low, high = (f"{self.value(v, halves)}.astype({wide})" for v in (low, high))
            self.set(target, f"{low} | {high} << {wide}.type({8 * halves.itemsize})", np.dtype(wide))
        elif target.startswith("{"):
            low, high = target.strip("{} ").replace(" ", "").split(",")
            self.lines.append(f"t = {self.value(source, np.dtype(f'u{kind.itemsize}'))}")
            self.set(low, f"t.astype({halves.str[1:]})", halves)
            self.set(high, f"(t >> u{kind.itemsize}.type({8 * halves.itemsize})).astype({halves.str[1:]})", halves)
        else:
            self.set(target, self.value(source, kind), kind)

    def _selp(self, parts, operands):
        kind = TYPES[parts[-1]]
        a, b = (self.value(o, kind) for o in operands[1:3])
        self.set(operands[0], f"np.where({self.value(operands[3], TYPES['pred'])}, {a}, {b})", kind)

    def _cvta(self, parts, operands):
        source = self.value(operands[1], u8)
        if "shared" in parts:
            source = f"{source} {'-' if 'to' in parts else '+'} u8.type({GENERIC_SHARED})"
        elif "global" not in parts:
            self.unknown()
        self.set(operands[0], source, u8)

    def _cvt(self, parts, operands):
        target, first = operands[0], operands[1]
        to, of = parts[-2:]
        if to in ("f16x2", "bf16x2") and of == "f32" and "rn" in parts:
            high, low = (f"{to[:-2]}({self.value(o, f4)})" for o in operands[1:])
            return self.set(target, f"both({high}, {low})", u4)
        if to == "tf32" and of == "f32" and "rna" in parts:
            return self.set(target, f"tf32({self.value(first, f4)})", u4)
        if (to, of) == ("f32", "f16"):
            return self.set(target, f"{self.value(first, u2)}.view(np.float16).astype(f4)", f4)
        if to not in TYPES or of not in TYPES:
            self.unknown()
        kind, own = TYPES[to], TYPES[of]
        value = self.value(first, own, "ftz" in parts)
        rounding = next((_ROUNDINGS[p] for p in parts if p in _ROUNDINGS), None)
        if own.kind == "f" and kind.kind in "iu":
            return self.set(target, f"to_integer({value}, {kind.str[1:]}, {rounding})", kind)
        if own == kind == f4:
            value = f"{rounding}({value})" if rounding else value
            value = f"np.nan_to_num(({value}).clip(0, 1), nan=0)" if "sat" in parts else value
            return self.set(target, value, f4)
        if "sat" in parts or (rounding and "f" in own.kind):
            self.unknown()
        value = f"({value}).astype({kind.str[1:]})"
        self.set(target, f"flushed({value})" if "ftz" in parts and kind == f4 else value, kind)

    # Arithmetic

    def _number(self, parts, operands, template):
        """Of floating point."""
        kind = TYPES[parts[-1]]
        values = [self.value(o, kind, "ftz" in parts) for o in operands[1:]]
        text = template.format(*values)
        self.set(operands[0], f"flushed({text})" if "ftz" in parts else text, kind)

    def _add(self, parts, operands):
        kind = TYPES[parts[-1]]
        if kind.kind == "f":
            truncates = parts[0] == "add" and parts[-1] == "f32" and "rz" in parts
            if set(parts[1:-1]) - {"rz" if truncates else "rn", "ftz"}:
                self.unknown()
            template = "truncated_sum({}, {})" if truncates else _ARITHMETIC[parts[0]]
            return self._number(parts, operands, template)
        if set(parts[1:-1]) - {"lo"}:
            self.unknown()
        kind = np.dtype(f"u{kind.itemsize}")
        self.set(operands[0], _ARITHMETIC[parts[0]].format(*(self.value(o, kind) for o in operands[1:])), kind)

    _sub = _add

    def _mul(self, parts, operands):
        if parts[1] not in ("wide", "hi"):
            return self._add(parts, operands)
        self.set(operands[0], *self._product(parts, operands))

    def _product(self, parts, operands):
        kind = TYPES[parts[-1]]
        wide = np.dtype(f"{kind.kind}{2 * kind.itemsize}")
        if kind.itemsize > 4:
            self.unknown()
        a, b = (self.value(o, kind) for o in operands[1:3])
        text = f"{a}.astype({wide.str[1:]}) * {b}"
        if parts[1] == "hi":
            return f"({text} >> {8 * kind.itemsize}).astype({kind.str[1:]})", kind
        return text, wide

    def _mad(self, parts, operands):
        if parts[1] == "wide":
            text, kind = self._product(parts, operands)
            return self.set(operands[0], f"{text} + {self.value(operands[3], kind)}", kind)
        if parts[1] != "lo":
            self.unknown()
        kind = np.dtype(f"u{TYPES[parts[-1]].itemsize}")
        a, b, c = (self.value(o, kind) for o in operands[1:])
        self.set(operands[0], f"{a} * {b} + {c}", kind)

    def _fma(self, parts, operands):
        kind = TYPES[parts[-1]]
        if kind == f8:
            return self._number(parts, operands, "{0} * {1} + {2}")
        if "ftz" not in parts:
            self.unknown()
        values = ", ".join(self.value(o, f4, True) for o in operands[1:])
        self.set(operands[0], f"{'fma_down' if 'rm' in parts else 'fma'}({values})", f4)

    def _div(self, parts, operands):
        kind = TYPES[parts[-1]]
        if kind.kind == "f":
            return self._number(parts, operands, "{0} / {1}")
        a, b = (self.value(o, kind) for o in operands[1:])
        text = f"quotient(S, {self.here}, {a}, {b}, {parts[0] == 'rem'})"
        self.set(operands[0], f"{text}.astype({kind.str[1:]})", kind)

    _rem = _div

    def _unary(self, parts, operands):
        kind = TYPES[parts[-1]]
        if kind.kind == "f":
            return self._number(parts, operands, {"neg": "-{0}", "abs": "np.abs({0})"}[parts[0]])
        self.set(operands[0], ("-" if parts[0] == "neg" else "np.abs") + f"({self.value(operands[1], kind)})", kind)

    _neg = _abs = _unary

    def _min(self, parts, operands):
        kind = TYPES[parts[-1]]
        name = f"np.f{parts[0]}" if kind.kind == "f" else f"np.{parts[0]}imum"
        if "NaN" in parts:
            self.unknown()
        if kind.kind == "f":
            return self._number(parts, operands, name + "({0}, {1})")
        self.set(operands[0], f"{name}({', '.join(self.value(o, kind) for o in operands[1:])})", kind)

    _max = _min

    def _function(self, parts, operands):
        kind = TYPES[parts[-1]]
        value = self.value(operands[1], kind, "ftz" in parts)
        text = _FUNCTIONS[parts[0]].format(f"{value}.astype(f8)" if "approx" in parts else value)
        text = f"({text}).astype({kind.str[1:]})"
        self.set(operands[0], f"flushed({text})" if "ftz" in parts else text, kind)

    _rcp = _sqrt = _rsqrt = _ex2 = _lg2 = _sin = _cos = _function

    def _and(self, parts, operands):
        kind = TYPES[parts[-1]]
        self.set(operands[0], _BITS[parts[0]].format(*(self.value(o, kind) for o in operands[1:])), kind)

    _or = _xor = _not = _and

    def _shl(self, parts, operands):
        kind = TYPES[parts[-1]]
        value = self.value(operands[1], kind)
        by = f"{self.value(operands[2], u4)}.astype({kind.str[1:]})"
        self.set(operands[0], f"{value} {'<<' if parts[0] == 'shl' else '>>'} {by}", kind)

    _shr = _shl

    def _setp(self, parts, operands):
        kind = TYPES[parts[-1]]
        if len(operands) != 3 or "|" in operands[0]:
            self.unknown()
        a, b = (self.value(o, kind, "ftz" in parts) for o in operands[1:])
        relation = parts[1]
        if relation in ("nan", "num"):
            text = f"{'~' if relation == 'num' else ''}(np.isnan({a}) | np.isnan({b}))"
        elif relation in _OPPOSITE:
            text = f"~({a} {_OPPOSITE[relation]} {b})"
        elif kind.kind == "f" and relation == "ne":
            text = f"({a} < {b}) | ({a} > {b})"
        else:
            text = f"{a} {_COMPARISONS[relation]} {b}"
        self.set(operands[0], text)

    def _bfi(self, parts, operands):
        self.set(operands[0], f"inserted({', '.join(self.value(o, u4) for o in operands[1:])})", u4)

    def _bfe(self, parts, operands):
        if parts[-1] != "u32":
            self.unknown()
        self.set(operands[0], f"extracted({', '.join(self.value(o, u4) for o in operands[1:])})", u4)

    def _prmt(self, parts, operands):
        if len(parts) != 2:
            self.unknown()
        self.set(operands[0], f"permuted({', '.join(self.value(o, u4) for o in operands[1:])})", u4)

    def _lop3(self, parts, operands):
        values = ", ".join(self.value(o, u4) for o in operands[1:4])
        self.set(operands[0], f"logic({values}, {int(operands[4], 0)})", u4)

    # Memory

    def _names(self, operand):
        return operand.strip("{} ").replace(" ", "").split(",")

    def _ld(self, parts, operands):
        parts = [p for p in parts if p != "volatile"]
        kind, targets = TYPES[parts[-1]], self._names(operands[0])
        if parts[1] == "param":
            return self.set(targets[0], f"S.values[{operands[1][1:-1]!r}]", kind)
        arguments = f"{self.here}, {self.address(operands[1])}, {kind.str[1:]}, {len(targets)}"
        if parts[1] == "global":
            self.lines.append(f"t = S.load_global({arguments}, {'nc' in parts})")
        elif parts[1] == "shared":
            self.lines.append(f"t = S.load_shared({arguments})")
        else:
            self.unknown()
        for place, target in enumerate(targets):
            self.set(target, f"t[{place}]", kind)

    def _st(self, parts, operands):
        kind, sources = TYPES[parts[-1]], self._names(operands[1])
        if parts[1] not in ("global", "shared"):
            self.unknown()
        values = ", ".join(self.value(o, kind) for o in sources)
        self.lines.append(
            f"S.store_{parts[1]}({self.here}, {self.address(operands[0])}, [{values}], {kind.str[1:]})"
        )

    def _atom(self, parts, operands):
        target, (address, operand) = ("_", operands) if parts[0] == "red" else (operands[0], operands[1:])
        kind, how = TYPES[parts[-1]], set(parts[1:-2]) - {"global", "gpu", "relaxed"}
        if parts[-2] not in _ATOMICS or kind.kind == "f" or "global" not in parts or how - {"acq_rel"}:
            self.unknown()
        self.lines.append(
            f"t = S.atomic({self.here}, {self.address(address)}, {parts[-2]!r}, {self.value(operand, kind)}, "
            f"{kind.str[1:]}, {bool(how)})"
        )
        self.set(target, "t", kind)

    _red = _atom

    def _membar(self, parts, operands):
        if parts[1:] != ["gl"]:
            self.unknown()
        self.lines.append(f"S.fence_memory({self.mask})")

    def _cp(self, parts, operands):
        if parts[:3] == ["cp", "async", "cg"]:
            target, source = map(self.address, operands[:2])
            size = int(operands[2])
            given = self.value(operands[3] if len(operands) > 3 else operands[2], u4)
            self.lines.append(f"S.copy_async({self.here}, {target}, {source}, {size}, {given})")
        elif parts == ["cp", "async", "commit_group"]:
            self.lines.append(f"S.commit_copies({self.mask})")
        elif parts in (["cp", "async", "wait_group"], ["cp", "async", "wait_all"]):
            self.lines.append(f"S.wait_for_copies({self.mask}, {int(operands[0]) if operands else 0})")
        else:
            self.unknown()

    # Warps

    def _shfl(self, parts, operands):
        target, _, valid = operands[0].partition("|")
        value, lane, clamp, members = (self.value(o, u4) for o in operands[1:])
        self.lines.append(f"t = S.shuffle({self.here}, {parts[2]!r}, {value}, {lane}, {clamp}, {members})")
        self.set(target, "t[0]", u4)
        if valid:
            self.set(valid, "t[1]")

    def _mma(self, parts, operands):
        known = {"m16n8k8.row.col.f32.tf32.tf32.f32": "tf32", "m16n8k16.row.col.f32.f16.f16.f32": "f16",
                 "m16n8k16.row.col.f32.bf16.bf16.f32": "bf16"}  # fmt: skip
        kind = known.get(".".join(parts[3:]))
        if parts[1:3] != ["sync", "aligned"] or kind is None:
            self.unknown()
        d, a, b, c = map(self._names, operands)
        a, b, c = ("[" + ", ".join(self.value(o, t) for o in list_) + "]" for list_, t in ((a, u4), (b, u4), (c, f4)))
        self.lines.append(f"t = S.multiply({self.here}, {kind!r}, {a}, {b}, {c})")
        for place, target in enumerate(d):
            self.set(target, f"t[{place}]", f4)

    def _fence(self, parts, operands):
        if parts[1:] in (["acq_rel", "gpu"], ["sc", "gpu"]):
            return self._membar(["membar", "gl"], operands)
        if parts[1:] != ["proxy", "async", "shared:cta"]:
            self.unknown()
        self.lines.append(f"S.fence({self.mask})")

    def _wgmma(self, parts, operands):
        if parts[1] == "fence":
            return
        if parts[1] == "commit_group":
            self.lines.append(f"S.commit_products({self.mask})")
        elif parts[1] == "wait_group":
            self.lines.append(f"S.wait_for_products({self.mask}, {int(operands[0])})")
        elif parts[1] == "mma_async":
            columns, depth = map(int, re.fullmatch(r"m64n(\d+)k(\d+)", parts[4]).groups())
            kind, sums, a = parts[6], self._names(operands[0]), self._names(operands[1])
            ends = [int(o) if not o.startswith("%") else o for o in operands[3:]]
            if parts[5:] != ["f32", kind, kind] or len(a) != 4 or not all(e in (0, 1) for e in ends[1:]):
                self.unknown()
            if ends[0] != 1 or ends[1:3] != [1, 1] or ends[3:] not in ([], [0]):
                self.unknown()
            old = "[" + ", ".join(self.value(o, f4) for o in sums) + "]"
            a = "[" + ", ".join(self.value(o, u4) for o in a) + "]"
            self.lines.append(
                f"t = S.multiply_shared({self.here}, {(columns, depth)}, {kind!r}, {a}, "
                f"{self.value(operands[2], u8)}, {old})"
            )
            for place, target in enumerate(sums):
                self.set(target, f"t[{place}]", f4)
        else:
            self.unknown()
