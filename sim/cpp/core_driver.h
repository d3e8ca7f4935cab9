// Drives a Verilated Core through its host bus, its input stream and its clock, as told on stdin.
//
// Every command is one byte and little-endian operands; every answer is 'K' and its result, or 'E', a length (u32)
// and a message, after which the program ends.
//
//   W address u32, n u32, n words          write consecutive words
//   R address u32, n u32                -> n words
//   I n u32, n bytes                       append to the input stream's queue (no time passes)
//   D                                      drop what is left of that queue
//   U states u32 (mask), cycles u64     -> state u8, cycles passed u64: run until the state is one of them
//   S cycles u64                        -> state u8
//   C                                   -> cycles since the start u64
//   Z seed u32, chance u32                 input stalls: in chance of 256 cycles nothing is offered
//   T n u32, n bytes                       write a waveform to that file from now on; n = 0 ends it
//
// sim/rtl_core.py is the other end.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <unistd.h>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

FILE* answers = nullptr;  // the real stdout; Verilator's own messages, such as a failed assertion, go to stderr

constexpr uint64_t kBusPatience = 10000;  // cycles; the core answers within 50
constexpr int kWriteCycles = 4;            // from taking a write of CONTROL to the state it leads to

template <typename T>
T get() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) std::exit(0);  // the other end is gone
    return value;
}

std::vector<uint8_t> get_bytes(size_t n) {
    std::vector<uint8_t> data(n);
    if (n && std::fread(data.data(), 1, n, stdin) != n) std::exit(0);
    return data;
}

template <typename T>
void put(T value) {
    std::fwrite(&value, sizeof value, 1, answers);
}

[[noreturn]] void fail(const std::string& message) {
    put<char>('E');
    put<uint32_t>(uint32_t(message.size()));
    std::fwrite(message.data(), 1, message.size(), answers);
    std::fflush(answers);
    std::exit(1);
}

#if VM_TRACE
// Ends the simulation when the waveform cannot be written, on a full disk say: Verilator's own error handler, which writes
// what is buffered before it aborts, hangs there.
class WaveformFile : public VerilatedVcdFile {
public:
    ssize_t write(const char* data, ssize_t size) override {
        const ssize_t done = VerilatedVcdFile::write(data, size);
        if (done < 0 && errno != EAGAIN && errno != EINTR) {
            std::fprintf(stderr, "%%Error: the waveform cannot be written: %s\n", std::strerror(errno));
            _exit(1);
        }
        return done;
    }
};
#endif

class Core {
public:
    Core() {
        context.randReset(2);
        context.randSeed(1);
#if VM_TRACE
        context.traceEverOn(true);
#endif
        top = std::make_unique<Vtop>(&context);
        top->bus_valid = 0;
        top->input_valid = 0;
#ifdef OVERLAY
        top->rx = 1;
        top->direct = 1;
#endif
        top->reset = 0;  // for boards whose clock domain has no reset
        top->rst = 1;
        for (int i = 0; i < 4; i++) tick();
        top->rst = 0;
        tick();  // the reset may come from a register: one clock more
        cycles = 0;
    }

    ~Core() {
        trace("");
        top->final();
    }

    // One clock; true in the outputs below what was seen before the rising edge.
    void tick() {
        if (!top->input_valid && !queue.empty() && (random() & 255) >= stall_chance) {
            top->input_valid = 1;
            top->input_payload = queue.front();
        }
        edge(0);
        bus_taken = top->bus_valid && top->bus_ready;
        bus_answered = top->bus_r_valid;
        bus_data = top->bus_r_data;
        const bool input_taken = top->input_valid && top->input_ready && !top->rst;
        edge(1);
        if (input_taken) {
            queue.pop_front();
            top->input_valid = 0;
        }
        cycles++;
    }

    void write(uint32_t address, uint32_t word) {
        request(address, true, word);
    }

    uint32_t read(uint32_t address) {
        request(address, false, 0);
        for (uint64_t waited = 0; waited < kBusPatience; waited++) {
            tick();
            if (bus_answered) return bus_data;
        }
        fail("the core did not answer a read of address " + std::to_string(address));
    }

    void drop_input() {
        queue.clear();
        top->input_valid = 0;
    }

    void trace(const std::string& path) {
#if VM_TRACE
        if (waveform) waveform->close();
        waveform.reset();
        if (path.empty()) return;
        waveform = std::make_unique<VerilatedVcdC>(&waveform_file);
        top->trace(waveform.get(), 99);
        waveform->open(path.c_str());
        if (!waveform->isOpen()) fail("cannot write waveform " + path);
#else
        if (!path.empty()) fail("this simulator was built without waveforms");
#endif
    }

    uint8_t state() const { return top->state; }

    std::deque<uint8_t> queue;
    std::mt19937 random{1};
    uint32_t stall_chance = 0;
    uint64_t cycles = 0;

private:
    void edge(int level) {
        top->clk = level;
        top->eval();
#if VM_TRACE
        if (waveform) waveform->dump(2 * cycles + level);
#endif
    }

    void request(uint32_t address, bool is_write, uint32_t word) {
        top->bus_valid = 1;
        top->bus_addr = address;
        top->bus_write = is_write;
        top->bus_w_data = word;
        for (uint64_t waited = 0; waited < kBusPatience; waited++) {
            tick();
            if (bus_taken) {
                top->bus_valid = 0;
                return;
            }
        }
        fail("the core did not take a request to address " + std::to_string(address));
    }

    VerilatedContext context;
    std::unique_ptr<Vtop> top;
#if VM_TRACE
    WaveformFile waveform_file;
    std::unique_ptr<VerilatedVcdC> waveform;
#endif
    bool bus_taken = false, bus_answered = false;
    uint32_t bus_data = 0;
};

void obey(Core& core, char command) {
    switch (command) {
        case 'W': {
            const auto address = get<uint32_t>();
            const auto n = get<uint32_t>();
            std::vector<uint32_t> words(n);
            for (auto& word : words) word = get<uint32_t>();
            for (uint32_t i = 0; i < n; i++) core.write(address + i, words[i]);
            for (int i = 0; i < kWriteCycles; i++) core.tick();
            put<char>('K');
            break;
        }
        case 'R': {
            const auto address = get<uint32_t>();
            const auto n = get<uint32_t>();
            std::vector<uint32_t> words(n);
            for (uint32_t i = 0; i < n; i++) words[i] = core.read(address + i);
            put<char>('K');
            std::fwrite(words.data(), sizeof(uint32_t), n, answers);
            break;
        }
        case 'I': {
            const auto data = get_bytes(get<uint32_t>());
            core.queue.insert(core.queue.end(), data.begin(), data.end());
            put<char>('K');
            break;
        }
        case 'D':
            core.drop_input();
            put<char>('K');
            break;
        case 'U': {
            const auto states = get<uint32_t>();
            const auto limit = get<uint64_t>();
            const uint64_t begin = core.cycles;
            while (!(states >> core.state() & 1) && core.cycles - begin < limit) core.tick();
            put<char>('K');
            put<uint8_t>(core.state());
            put<uint64_t>(core.cycles - begin);
            break;
        }
        case 'S': {
            const auto n = get<uint64_t>();
            for (uint64_t i = 0; i < n; i++) core.tick();
            put<char>('K');
            put<uint8_t>(core.state());
            break;
        }
        case 'C':
            put<char>('K');
            put<uint64_t>(core.cycles);
            break;
        case 'Z':
            core.random.seed(get<uint32_t>());
            core.stall_chance = get<uint32_t>();
            put<char>('K');
            break;
        case 'T': {
            const auto path = get_bytes(get<uint32_t>());
            core.trace(std::string(path.begin(), path.end()));
            put<char>('K');
            break;
        }
        default:
            fail("unknown command");
    }
    std::fflush(answers);
}

// Obeys until the end of stdin; does not return.
[[noreturn]] void run_core() {
    answers = fdopen(dup(STDOUT_FILENO), "wb");
    dup2(STDERR_FILENO, STDOUT_FILENO);
    Core core;
    while (true) obey(core, get<char>());
}

}  // namespace

