#include "tests/emulation/symbols.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

namespace ziggurat::emulation {

namespace {

std::string demangle(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

// "void ziggurat::kernels::(anonymous namespace)::mix<float, 4>(float const*)" -> "mix<float, 4>"
std::string short_name(const std::string& full) {
  size_t begin = 0, end = full.size();
  int angles = 0;
  for (size_t i = 0; i < full.size(); ++i) {
    if (full.compare(i, 21, "(anonymous namespace)") == 0) {
      i += 20;
      continue;
    }
    if (full[i] == '<') ++angles;
    if (full[i] == '>') --angles;
    if (angles > 0) continue;
    if (full[i] == ' ' || full[i] == ':') begin = i + 1;
    if (full[i] == '(') {
      end = i;
      break;
    }
  }
  std::string name = full.substr(begin, end - begin);
  for (size_t at; (at = name.find("ziggurat::")) != std::string::npos;) name.erase(at, 10);
  return name;
}

struct Symbols {
  std::unordered_map<uintptr_t, std::string> functions;  // by address in the file; mangled
  std::vector<SharedVariable> shared;                    // by offset

  Symbols() {
    std::ifstream file("/proc/self/exe", std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto* header = reinterpret_cast<const Elf64_Ehdr*>(bytes.data());
    const auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes.data() + header->e_shoff);
    for (int s = 0; s < header->e_shnum; ++s) {
      if (sections[s].sh_type != SHT_SYMTAB) continue;
      const auto* symbols = reinterpret_cast<const Elf64_Sym*>(bytes.data() + sections[s].sh_offset);
      const char* names = bytes.data() + sections[sections[s].sh_link].sh_offset;
      for (size_t i = 0; i < sections[s].sh_size / sizeof(Elf64_Sym); ++i) {
        const Elf64_Sym& symbol = symbols[i];
        const char* name = names + symbol.st_name;
        if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_value != 0) {
          functions.emplace(symbol.st_value, name);
        } else if (ELF64_ST_TYPE(symbol.st_info) == STT_TLS && symbol.st_size > 0) {
          shared.push_back({symbol.st_value, symbol.st_size, demangle(name)});
        }
      }
    }
    if (functions.empty())
      throw std::runtime_error("the emulator reads kernels' names: do not strip this program");
    std::sort(shared.begin(), shared.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  }
};

const Symbols& symbols() {
  static const Symbols* all = new Symbols;
  return *all;
}

struct Program {
  uintptr_t base = 0;
  Range image;
  size_t thread_local_bytes = 0;
};

// dl_iterate_phdr visits the program itself first.
int visit_program(dl_phdr_info* info, size_t, void* result) {
  auto* program = static_cast<Program*>(result);
  program->base = info->dlpi_addr;
  uintptr_t begin = UINTPTR_MAX, end = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type == PT_LOAD) {
      begin = std::min<uintptr_t>(begin, info->dlpi_addr + part.p_vaddr);
      end = std::max<uintptr_t>(end, info->dlpi_addr + part.p_vaddr + part.p_memsz);
    }
    if (part.p_type == PT_TLS) program->thread_local_bytes = part.p_memsz;
  }
  program->image = {begin, end - begin};
  return 1;
}

const Program& this_program() {
  static const Program program = [] {
    Program p;
    dl_iterate_phdr(visit_program, &p);
    return p;
  }();
  return program;
}

}  // namespace

std::string kernel_name(const void* function) {
  const auto it = symbols().functions.find(reinterpret_cast<uintptr_t>(function) - this_program().base);
  return it == symbols().functions.end() ? "kernel" : short_name(demangle(it->second.c_str()));
}

const SharedVariable& shared_variable(uintptr_t offset) {
  static const SharedVariable none;
  const auto& all = symbols().shared;
  auto it = std::upper_bound(all.begin(), all.end(), offset,
                             [](uintptr_t at, const SharedVariable& v) { return at < v.offset; });
  if (it == all.begin()) return none;
  --it;
  return offset - it->offset < it->bytes ? *it : none;
}

Range thread_local_storage() {
  Range range{0, this_program().thread_local_bytes};
  const auto visit = [](dl_phdr_info* info, size_t, void* result) {
    static_cast<Range*>(result)->begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
    return 1;
  };
  dl_iterate_phdr(visit, &range);
  return range;
}

Range program() { return this_program().image; }

}  // namespace ziggurat::emulation
