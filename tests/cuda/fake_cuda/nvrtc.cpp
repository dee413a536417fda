// NVRTC: compiles kernels for the CPU with g++. The "PTX" that it returns is the path of the compiled library (see
// `cuModuleLoadData`).

#include <dlfcn.h>
#include <stdlib.h>

#include <cstring>
#include <fstream>
#include <regex>
#include <sstream>

#include "fake_cuda.h"

using namespace fake_cuda;

namespace {

struct Program {
    std::string source, library, log;
};

// The folder of this library, which has a copy of on_host.h.
std::string own_folder() {
    Dl_info info;
    dladdr(reinterpret_cast<void *>(&own_folder), &info);
    std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

} // namespace

extern "C" {

int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char *const *, const char *const *) {
    ENTER("nvrtcCreateProgram");
    *program = new Program{source, "", ""};
    return SUCCESS;
}

int nvrtcCompileProgram(void *handle, int, const char *const *) {
    ENTER("nvrtcCompileProgram");
    auto program = static_cast<Program *>(handle);
    std::string folder = "/tmp/fake_cuda_XXXXXX";
    if (!mkdtemp(&folder[0])) return 11; // NVRTC_ERROR_INTERNAL_ERROR
    std::string path = folder + "/kernels";
    {
        std::ofstream file(path + ".cpp");
        file << "#include \"on_host.h\"\n" << program->source << "\n";
        std::regex kernel("__global__ void (\\w+)\\(");
        for (std::sregex_iterator it(program->source.begin(), program->source.end(), kernel), end; it != end; ++it) {
            std::string name = (*it)[1];
            file << "extern \"C\" void " << name << "__call(void **parameters) { call(" << name << ", parameters); }\n";
        }
    }
    std::string command = "g++ -std=c++17 -O2 -w -fPIC -shared -I'" + own_folder() + "' -o " + path + ".so " + path +
                          ".cpp 2> " + path + ".log";
    int status = system(command.c_str());
    std::stringstream log;
    log << std::ifstream(path + ".log").rdbuf();
    program->log = log.str();
    program->library = path + ".so";
    return status == 0 ? SUCCESS : 6; // NVRTC_ERROR_COMPILATION
}

int nvrtcDestroyProgram(void **program) {
    ENTER("nvrtcDestroyProgram");
    delete static_cast<Program *>(*program);
    return SUCCESS;
}

int nvrtcGetPTXSize(void *program, std::size_t *bytes) {
    *bytes = static_cast<Program *>(program)->library.size() + 1;
    return SUCCESS;
}

int nvrtcGetPTX(void *program, char *ptx) {
    std::strcpy(ptx, static_cast<Program *>(program)->library.c_str());
    return SUCCESS;
}

int nvrtcGetProgramLogSize(void *program, std::size_t *bytes) {
    *bytes = static_cast<Program *>(program)->log.size() + 1;
    return SUCCESS;
}

int nvrtcGetProgramLog(void *program, char *log) {
    std::strcpy(log, static_cast<Program *>(program)->log.c_str());
    return SUCCESS;
}
}
